"""Sessions and symbols."""

import subprocess
import sys

import numpy as np
import pytest

from headwater.compression.bundle import Bundle
from headwater.compression.errors import BundleError
from headwater.compression.inference import Bursts, quantise, session


def test_a_graph_that_is_none() -> None:
    with pytest.raises(BundleError, match=r"cannot load tail_x\.onnx of the bundle y"):
        session(b"no graph", name="tail_x.onnx of the bundle y")


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_threads_change_no_answer(tiny_bundle: Bundle, threads: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, *tiny_bundle.manifest.input.shape), dtype=np.uint8)
    graph = tiny_bundle.read("head_1.onnx")
    (latent,) = session(graph, threads, batches=True).run(("latent",), {"image": image})
    np.testing.assert_allclose(latent, session(graph).run(("latent",), {"image": image})[0], atol=1e-5)


def test_symbols_are_rounded_to_even_by_the_gain_of_their_channel() -> None:
    latent = np.array([[[0.5, 1.5, -2.6]], [[0.5, 1.5, -2.6]]], np.float32)
    symbols = quantise(latent, np.array([1, 10], np.float32))
    assert symbols.dtype == np.int16
    assert symbols.tolist() == [[[0, 2, -3]], [[5, 15, -26]]]
    assert latent[0, 0, 0] == np.float32(0.5), "the latent is left alone"


def test_symbols_are_clipped_to_sixteen_bits() -> None:
    latent = np.array([[[1e9]], [[-1e9]]], np.float32)
    assert quantise(latent, np.ones(2, np.float32)).ravel().tolist() == [32767, -32768]


def test_what_large_batches_took_is_given_back_when_small_ones_have_come_for_a_while() -> None:
    now_s = 0.0
    bursts = Bursts(lambda: now_s)

    def gives_back(at_s: float, batch: int) -> bool:
        nonlocal now_s
        now_s = at_s
        return bursts.options(batch) is not None

    assert not gives_back(0.0, 64)
    assert not gives_back(1.0, 1)
    assert not gives_back(9.0, 17), "more than a quarter: the burst goes on"
    assert not gives_back(18.9, 16)
    assert gives_back(19.0, 16)
    assert not gives_back(19.1, 1), "once, and not again before another while is over"
    assert gives_back(29.1, 1), "the largest since then had 16"
    assert not gives_back(60.0, 1), "nothing is left to give back"


def test_given_back_memory_is_the_system_s_again() -> None:
    """The demo's tail after a batch of 64, in a process of its own, whose heap nobody else uses."""
    says = """
import subprocess
import sys

import numpy as np
from pathlib import Path
from headwater.compression.bundle import Bundle
from headwater.compression.inference import Bursts
from headwater.server.tails import Tails
from headwater.simulations.shipped import shipped_bundle

def own_kb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

now_s = 0.0
tails = Tails(Bundle.load(shipped_bundle()))
tails._bursts = Bursts(lambda: now_s)
sizes = []
for now_s, batch in ((0.0, 1), (0.0, 64), (1.0, 1), (20.0, 1), (20.0, 1)):
    tails.warm_up(batch)
    sizes.append(own_kb())
print(*sizes)
"""
    done = subprocess.run([sys.executable, "-c", says], capture_output=True, text=True, check=True)
    first, large, kept, *back = map(int, done.stdout.split())
    taken = large - first
    assert taken > 16_000
    assert kept > first + taken / 2
    assert max(back) < first + taken / 4
