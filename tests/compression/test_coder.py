from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import constriction
import numpy as np
import pytest

from headwater.compression import coder as coder_module
from headwater.compression.coder import Coder, Encoded, Implementation
from headwater.compression.errors import BundleError, FrameError
from tests.compression.priors import Prior, laplace_prior, random_prior


@pytest.fixture(params=["c", "python"])
def implementation(request: pytest.FixtureRequest) -> Implementation:
    chosen: Implementation = request.param
    return chosen


@pytest.fixture
def prior() -> Prior:
    """Three groups of four channels; the bundle's steps are 1/4."""
    return laplace_prior([0.1, 0.3, 0.6, 1.0], 5, 7, [1, 2, 4])


def test_round_trip(implementation: Implementation, prior: Prior) -> None:
    coder = prior.coder(implementation)
    symbols = prior.draw(np.random.default_rng(0), 0)
    encoded = coder.encode(symbols, 0)
    decoded = coder.decode(encoded.payload, 0)
    assert np.array_equal(decoded, symbols)
    assert (decoded.dtype, decoded.shape) == (np.int16, (4, 5, 7))


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_prefix_of_the_groups_decodes(implementation: Implementation, lanes: int) -> None:
    prior = laplace_prior([1.0, 1.0, 0.6, 0.3], 9, 9, [1, 2, 4], lanes=lanes)
    coder = prior.coder(implementation)
    symbols = prior.draw(np.random.default_rng(1), 0)
    encoded = coder.encode(symbols, 0)
    assert list(encoded.group_ends) == sorted(encoded.group_ends)
    assert encoded.group_ends[-1] == len(encoded.payload)
    assert encoded.group_ends[0] < encoded.group_ends[1] < encoded.group_ends[2]
    for groups, (end, channels) in enumerate(zip(encoded.group_ends, (1, 2, 4), strict=True), start=1):
        assert np.array_equal(coder.decode(encoded.payload[:end], 0, groups), symbols[:channels])
        assert np.array_equal(coder.decode(encoded.payload, 0, groups), symbols[:channels])


def test_a_frame_of_likeliest_symbols_takes_no_bytes(implementation: Implementation, prior: Prior) -> None:
    coder = prior.coder(implementation)
    nothing = np.zeros((4, 5, 7), np.int16)
    assert coder.encode(nothing, 0) == Encoded(b"", (0, 0, 0))
    assert np.array_equal(coder.decode(b"", 0), nothing)


def test_likeliest_symbols_at_the_end_take_no_bytes(implementation: Implementation, prior: Prior) -> None:
    symbols = np.zeros((4, 5, 7), np.int16)
    symbols[0, 0, 0] = 1
    assert len(prior.coder(implementation).encode(symbols, 0).payload) <= 2


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("symbol", [-32768, -32767, -31, 31, 32766, 32767])
def test_any_int16_can_be_coded(implementation: Implementation, symbol: int, lanes: int) -> None:
    prior = laplace_prior([0.1, 0.3, 1.0], 3, 5, [3], lanes=lanes)
    coder = prior.coder(implementation)
    symbols = np.full((3, 3, 5), symbol, np.int16)
    encoded = coder.encode(symbols, 0)
    assert np.array_equal(coder.decode(encoded.payload, 0), symbols)
    assert len(encoded.payload) <= 45 * 37 / 8 + 32


def test_tables_may_end_at_the_limits_of_int16(implementation: Implementation) -> None:
    from headwater.compression.tables import PriorTables

    arrays = laplace_prior([1.0], 2, 2, [1]).tables.arrays()
    arrays |= {"frequencies": np.array([9, 65000, 527], np.uint16), "starts": np.array([0, 3], np.uint32)}
    for low in (-32768, 32766):
        tables = PriorTables.from_arrays({**arrays, "low": np.array([low], np.int16)})
        coder = Coder(tables, 2, 2, implementation=implementation)
        symbols = np.array([[[low, low + 1], [-32768, 32767]]], np.int16)
        assert np.array_equal(coder.decode(coder.encode(symbols, 0).payload, 0), symbols)


@pytest.mark.parametrize(
    ("scales", "sides", "lanes"),
    [([0.12] * 12, (16, 16), 1), ([0.2, 0.4, 0.8, 1.2] * 3, (16, 16), 1), ([0.5, 0.8, 1.0, 1.4] * 6, (28, 28), 2)],
    ids=["sparse", "middling", "two lanes"],
)
def test_bytes_stay_near_the_ideal_and_near_constriction(
    scales: list[float], sides: tuple[int, int], lanes: int
) -> None:
    prior = laplace_prior(scales, *sides, [len(scales)])
    assert prior.tables.lanes.tolist() == [lanes]
    symbols = prior.draw(np.random.default_rng(2), 0)
    ideal, peer = 0.0, constriction.stream.stack.AnsCoder()
    for plane, weights in zip(symbols, prior.weights[0], strict=True):
        probabilities, indices = weights[:-1] / weights[:-1].sum(), plane.ravel().astype(np.int32) + 30
        ideal -= np.log2(probabilities[indices]).sum() / 8
        model = constriction.stream.model.Categorical(probabilities.astype(np.float32), perfect=False)
        peer.encode_reverse(indices, model)
    ours = len(prior.coder("c").encode(symbols, 0).payload)
    assert ours <= ideal * 1.003 + 4
    assert ours <= peer.get_compressed().nbytes + (4 if lanes == 1 else 12)


def test_a_batch_is_the_frames_one_by_one(implementation: Implementation) -> None:
    rng = np.random.default_rng(7)
    for _ in range(20):
        prior = random_prior(rng)
        coder, tables = prior.coder(implementation), prior.tables
        modes = [int(mode) for mode in rng.integers(0, tables.modes, 5)]
        groups = [int(count) for count in rng.integers(1, len(tables.group_ends) + 1, 5)]
        symbols = [prior.draw(rng, mode) for mode in modes]
        payloads = []
        for plane, mode, count in zip(symbols, modes, groups, strict=True):
            encoded = coder.encode(plane, mode)
            payloads.append(encoded.payload[: encoded.group_ends[count - 1]])
        latents, errors = coder.decode_batch(payloads, modes, groups)
        assert errors == [None] * 5
        assert (latents.dtype, latents.shape) == (np.float32, (5, tables.channels, prior.height, prior.width))
        for row, plane, mode, count in zip(latents, symbols, modes, groups, strict=True):
            channels = tables.channels_of(mode, count)
            want = plane[:channels].astype(np.float32) * tables.step[mode, :channels, np.newaxis, np.newaxis]
            assert np.array_equal(row[:channels], want)
            assert not row[channels:].any()


def test_a_bad_frame_harms_no_other(implementation: Implementation, prior: Prior) -> None:
    coder = prior.coder(implementation)
    good = coder.encode(prior.draw(np.random.default_rng(3), 0), 0).payload
    alone, _ = coder.decode_batch([good], [0], [3])
    payloads = [good, good[:-1], good, good, b"\xff" * 8, good, good]
    modes, groups = [0, 0, 0, 1, 0, -1, 0], [3, 3, 4, 3, 3, 3, 0]
    latents, errors = coder.decode_batch([*payloads, good], [*modes, 0], [*groups, 3])
    assert [error is None for error in errors] == [True, *[False] * 6, True]
    assert all(error is None or isinstance(error, FrameError) for error in errors)
    assert np.array_equal(latents[[0, 7]], np.concatenate([alone, alone]))
    assert not latents[1:7].any()


def test_an_empty_batch_is_no_special_case(implementation: Implementation, prior: Prior) -> None:
    latents, errors = prior.coder(implementation).decode_batch([], [], [])
    assert (latents.shape, errors) == ((0, 4, 5, 7), [])


def test_a_batch_of_unequal_lists_is_refused(implementation: Implementation, prior: Prior) -> None:
    with pytest.raises(ValueError, match="2 payloads, 1 modes and 2 groups"):
        prior.coder(implementation).decode_batch([b"", b""], [0], [1, 1])


@pytest.mark.parametrize(
    ("symbols", "mode", "message"),
    [
        (np.zeros((4, 5, 7), np.int32), 0, r"int32 \[4, 5, 7\]; mode 0 wants int16 \[4, 5, 7\]"),
        (np.zeros((3, 5, 7), np.int16), 0, r"int16 \[3, 5, 7\]"),
        (np.zeros((4, 35), np.int16), 0, r"int16 \[4, 35\]"),
        (np.zeros((4, 5, 7), np.int16), 1, "mode is 1; want 0 to 0"),
        (np.zeros((4, 5, 7), np.int16), -1, "mode is -1"),
    ],
)
def test_wrong_symbols_are_refused(
    implementation: Implementation, prior: Prior, symbols: np.ndarray, mode: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        prior.coder(implementation).encode(symbols, mode)


def test_symbols_need_not_be_contiguous(implementation: Implementation, prior: Prior) -> None:
    coder, symbols = prior.coder(implementation), prior.draw(np.random.default_rng(4), 0)
    assert coder.encode(np.asfortranarray(symbols), 0) == coder.encode(symbols, 0)


def test_a_mode_or_groups_that_there_are_not(implementation: Implementation, prior: Prior) -> None:
    coder = prior.coder(implementation)
    with pytest.raises(FrameError, match="mode 1; this bundle has 0 to 0"):
        coder.decode(b"", 1)
    for groups in (0, 4, -1):
        with pytest.raises(FrameError, match=f"{groups} channel groups; this bundle has 1 to 3"):
            coder.decode(b"", 0, groups)


def test_a_latent_past_the_limit_is_refused(prior: Prior) -> None:
    for sides in ((4096, 4096), (0, 5), (5, -1)):
        with pytest.raises(BundleError, match="want 1 to 16777216"):
            Coder(prior.tables, *sides)


def test_one_coder_serves_many_threads() -> None:
    prior = laplace_prior([0.5, 1.0] * 4, 32, 32, [8])
    coder, rng = prior.coder("c"), np.random.default_rng(5)
    frames = [prior.draw(rng, 0) for _ in range(8)]
    wanted = [coder.encode(symbols, 0) for symbols in frames]
    barrier = threading.Barrier(8)

    def work(index: int) -> bool:
        barrier.wait()
        for _ in range(100):
            if coder.encode(frames[index], 0) != wanted[index]:
                return False
            if not np.array_equal(coder.decode(wanted[index].payload, 0), frames[index]):
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_the_gil_is_released() -> None:
    """With threads that are never switched by time, another one runs only if the coder lets it."""
    prior = laplace_prior([1.0] * 16, 256, 256, [16], lanes=1)
    coder = prior.coder("c")
    symbols = np.zeros((16, 256, 256), np.int16)
    calls = {
        "encode": lambda: coder.encode(symbols, 0),
        "decode": lambda: coder.decode(b"", 0),
        "decode_batch": lambda: coder.decode_batch([b""] * 4, [0] * 4, [1] * 4),
    }
    assert [name for name, call in calls.items() if not _lets_others_run(call)] == []
    assert not _lets_others_run(lambda: sum(range(10_000)))  # the test can fail


def _lets_others_run(call: Callable[[], object]) -> bool:
    go, ran, interval = threading.Event(), [], sys.getswitchinterval()
    thread = threading.Thread(target=lambda: ran.append(go.wait()))
    thread.start()
    sys.setswitchinterval(1000)
    try:
        go.set()
        for _ in range(200):  # a busy machine may not wake the thread in time for the first
            call()
            if ran:
                break
        return bool(ran)
    finally:
        sys.setswitchinterval(interval)
        thread.join()


def test_nothing_leaks() -> None:
    prior = laplace_prior([0.5, 1.0] * 4, 16, 16, [8])
    symbols = prior.draw(np.random.default_rng(6), 0)

    def use() -> None:
        for _ in range(50):
            coder = prior.coder("c")
            payload = coder.encode(symbols, 0).payload
            coder.decode_batch([payload, payload[:-1], b"\xff" * 40], [0, 0, 0], [1, 1, 1])

    use()
    before = _rss()
    for _ in range(20):
        use()
    gc.collect()
    assert _rss() - before < 8 << 20  # 1,000 coders, each with 33 KiB of tables for decoding alone


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


_WITHOUT_C = """
import logging, sys
sys.modules["headwater.compression._rans"] = None
logging.basicConfig(format="%(name)s %(levelname)s %(message)s")
from headwater.compression.coder import Coder
from tests.compression.priors import laplace_prior
tables = laplace_prior([0.5], 2, 2, [1]).tables
print(Coder(tables, 2, 2).implementation, Coder(tables, 2, 2).implementation)
try:
    Coder(tables, 2, 2, implementation="c")
except ImportError as error:
    print(error)
"""


def test_without_a_compiler_the_python_coder_takes_over_and_says_so_once() -> None:
    done = subprocess.run([sys.executable, "-c", _WITHOUT_C], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "python python"
    assert "was not built; install headwater where there is a C compiler" in done.stdout
    assert done.stderr.count("WARNING") == 1
    assert "headwater.compression.coder WARNING the C entropy coder was not built" in done.stderr


def test_where_it_was_built_c_is_used_without_a_word(prior: Prior, caplog: pytest.LogCaptureFixture) -> None:
    coder_module._choose.cache_clear()
    with caplog.at_level(logging.DEBUG):
        assert Coder(prior.tables, 5, 7).implementation == "c"
    assert caplog.records == []
