"""Sessions and symbols."""

import numpy as np
import pytest

from headwater.compression.bundle import Bundle
from headwater.compression.errors import BundleError
from headwater.compression.inference import quantise, session


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
