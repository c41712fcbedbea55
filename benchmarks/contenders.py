"""Who takes part in :mod:`benchmarks.coder`: frames drawn from known distributions, our coder, and its peers'.

Each contender's own preparation (tables, models, offsets, dtypes) is done when it is made, so that none of it is timed.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from headwater.compression.coder import Coder, Encoded
from headwater.compression.tables import PriorTables

if TYPE_CHECKING:
    from numpy.typing import NDArray

REACH = 60
"""Symbols that every coder's tables are made for: -REACH .. REACH."""


class Shape(NamedTuple):
    """A latent's shape and what its payload is to be."""

    kind: str
    payload_bytes: int
    channels: int
    side: int


@dataclass
class Sample:
    """Frames drawn from the distributions of one shape."""

    shape: Shape
    probabilities: NDArray[np.float64]
    """[C, 2 * REACH + 1]"""
    scales: NDArray[np.float64]
    """[C], of the Laplace distributions."""
    frames: list[NDArray[np.int16]]
    """Each [C, H, W]."""

    def ideal_bytes(self, frame: NDArray[np.int16]) -> float:
        """What the frame's symbols carry under these distributions."""
        rows = np.arange(self.shape.channels)[:, np.newaxis]
        return float(-np.log2(self.probabilities[rows, frame.reshape(len(frame), -1) + REACH]).sum() / 8)


def laplace(scales: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities [C, 2 * REACH + 1] of rounded Laplace variables."""
    edges = np.arange(-REACH, REACH + 2) - 0.5
    tail = 0.5 * np.exp(-np.abs(edges) / scales[:, np.newaxis])
    mass = np.abs(np.diff(np.where(edges < 0, tail, 1 - tail)))
    # Far out, 1 - tail has no digits left; the distribution is symmetric, and its other half has them.
    mass = np.minimum(mass, mass[:, ::-1])
    return np.asarray(mass / mass.sum(axis=1, keepdims=True))


def draw(shape: Shape, count: int) -> Sample:
    """Draw frames whose mean payload is as wanted; channels differ in scale by a factor of five, large ones first."""
    spread = np.geomspace(5, 1, shape.channels)
    low, high = 1e-3, 10.0
    for _ in range(60):
        middle = (low * high) ** 0.5
        entropy = laplace(middle * spread)
        size = -(entropy * np.log2(np.maximum(entropy, 1e-300))).sum() * shape.side**2 / 8
        low, high = (middle, high) if size < shape.payload_bytes else (low, middle)
    probabilities = np.maximum(laplace(low * spread), 1e-30)
    rng = np.random.default_rng(0)
    planes = [rng.choice(2 * REACH + 1, (count, shape.side, shape.side), p=row / row.sum()) for row in probabilities]
    frames = (np.stack(planes, axis=1) - REACH).astype(np.int16)
    return Sample(shape, probabilities, low * spread, list(np.ascontiguousarray(frames)))


@dataclass
class Contender:
    """One way to code a sample's frames: for each frame a call that encodes and a call that decodes."""

    name: str
    encoders: list[Callable[[], Any]]
    decoders: list[Callable[[], Any]] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)


# -------------------------------------------------------------------------------------------------------------- ours


def our_tables(sample: Sample) -> PriorTables:
    """One mode, three channel groups."""
    channels = sample.shape.channels
    weights = [np.append(row, 0) for row in sample.probabilities]
    ones, ends = np.ones((1, channels)), [channels // 3, 2 * channels // 3, channels]
    return PriorTables.from_counts([weights], [[-REACH] * channels], ones, ones, ends, plane=sample.shape.side**2)


def ours(sample: Sample) -> Contender:
    """Our coder, through the calls that device and server make."""
    coder = Coder(our_tables(sample), sample.shape.side, sample.shape.side, implementation="c")
    encoded: list[Encoded] = [coder.encode(frame, 0) for frame in sample.frames]
    for frame, made in zip(sample.frames, encoded, strict=True):
        assert np.array_equal(coder.decode(made.payload, 0), frame)
    return Contender(
        "headwater",
        [lambda frame=frame: coder.encode(frame, 0) for frame in sample.frames],  # type: ignore[misc]
        [lambda payload=made.payload: coder.decode(payload, 0) for made in encoded],  # type: ignore[misc]
        [len(made.payload) for made in encoded],
    )


# ------------------------------------------------------------------------------------------------------- constriction


def constriction_ways(sample: Sample) -> list[Contender]:
    """Range coder and ANS coder, each with three ways of saying which channel has which model."""
    import constriction

    model = constriction.stream.model
    channels, cells = sample.shape.channels, sample.shape.side**2
    categorical = [model.Categorical(row.astype(np.float32), perfect=False) for row in sample.probabilities]
    quantized = [model.QuantizedLaplace(-REACH, REACH, 0.0, float(scale)) for scale in sample.scales]
    family = model.QuantizedLaplace(-REACH, REACH)
    parameters = (np.zeros(channels * cells, np.float32), np.repeat(sample.scales.astype(np.float32), cells))
    ways: list[tuple[str, int, list[tuple[Any, ...]], int]] = [
        ("Categorical a channel", REACH, [(each,) for each in categorical], cells),
        ("QuantizedLaplace a channel", 0, [(each,) for each in quantized], cells),
        ("QuantizedLaplace family", 0, [(family, *parameters)], channels * cells),
    ]
    result = []
    for name, offset, models, count in ways:
        result += [_range(sample, name, offset, models, count), _ans(sample, name, offset, models, count)]
    return result


def _range(sample: Sample, name: str, offset: int, models: list[tuple[Any, ...]], count: int) -> Contender:
    import constriction

    def encode(parts: list[NDArray[np.int32]]) -> NDArray[np.uint32]:
        encoder = constriction.stream.queue.RangeEncoder()
        for part, each in zip(parts, models, strict=True):
            encoder.encode(part, *each)
        return np.asarray(encoder.get_compressed())

    def decode(words: NDArray[np.uint32]) -> list[NDArray[np.int32]]:
        decoder = constriction.stream.queue.RangeDecoder(words)
        return [decoder.decode(*each) if len(each) > 1 else decoder.decode(*each, count) for each in models]

    return _constriction(f"range coder, {name}", sample, offset, len(models), encode, decode)


def _ans(sample: Sample, name: str, offset: int, models: list[tuple[Any, ...]], count: int) -> Contender:
    import constriction

    def encode(parts: list[NDArray[np.int32]]) -> NDArray[np.uint32]:
        coder = constriction.stream.stack.AnsCoder()
        for part, each in zip(reversed(parts), reversed(models), strict=True):
            coder.encode_reverse(part, *each)
        return np.asarray(coder.get_compressed())

    def decode(words: NDArray[np.uint32]) -> list[NDArray[np.int32]]:
        coder = constriction.stream.stack.AnsCoder(words)
        return [coder.decode(*each) if len(each) > 1 else coder.decode(*each, count) for each in models]

    return _constriction(f"ANS, {name}", sample, offset, len(models), encode, decode)


def _constriction(
    name: str,
    sample: Sample,
    offset: int,
    parts: int,
    encode: Callable[[list[NDArray[np.int32]]], NDArray[np.uint32]],
    decode: Callable[[NDArray[np.uint32]], list[NDArray[np.int32]]],
) -> Contender:
    frames = [list(frame.astype(np.int32).reshape(parts, -1) + offset) for frame in sample.frames]
    words = [encode(frame) for frame in frames]
    for frame, word in zip(frames, words, strict=True):
        assert np.array_equal(np.concatenate(decode(word)), np.concatenate(frame)), name
    version = importlib.metadata.version("constriction")
    return Contender(
        f"constriction {version}, {name}",
        [lambda frame=frame: encode(frame) for frame in frames],  # type: ignore[misc]
        [lambda word=word: decode(word) for word in words],  # type: ignore[misc]
        [word.nbytes for word in words],
    )


# --------------------------------------------------------------------------------------------------------- CompressAI


@cache
def compressai_ans() -> Any:  # noqa: ANN401 - an extension module without types
    """Load CompressAI's coder alone: the package around it wants torchvision and more."""
    package = importlib.util.find_spec("compressai")
    if package is None or not package.submodule_search_locations:
        raise ImportError("compressai is not installed (pip install --no-deps compressai==1.2.8)")
    found = sorted(Path(package.submodule_search_locations[0]).glob("ans*.so"))
    if not found:
        raise ImportError("compressai is installed without its ans extension")
    spec = importlib.util.spec_from_file_location("compressai.ans", found[0])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compressai(sample: Sample) -> Contender:
    """As EntropyBottleneck does: one index a symbol, everything turned into lists for every call."""
    ans, tables, channels = compressai_ans(), our_tables(sample), sample.shape.channels
    pairs = [tables.table(0, channel) for channel in range(channels)]
    lengths = np.array([frequencies.size + 1 for _, frequencies in pairs], np.int32)
    offsets = np.array([low for low, _ in pairs], np.int32)
    cdfs = np.zeros((channels, lengths.max()), np.int32)
    for row, (_, frequencies) in zip(cdfs, pairs, strict=True):
        row[1 : frequencies.size + 1] = np.cumsum(frequencies.astype(np.int32))
    indexes = np.repeat(np.arange(channels, dtype=np.int32), sample.shape.side**2)
    encoder, decoder = ans.RansEncoder(), ans.RansDecoder()

    def encode(symbols: NDArray[np.int32]) -> bytes:
        model = (indexes.tolist(), cdfs.tolist(), lengths.tolist(), offsets.tolist())
        return bytes(encoder.encode_with_indexes(symbols.tolist(), *model))

    def decode(payload: bytes) -> NDArray[np.int32]:
        model = (indexes.tolist(), cdfs.tolist(), lengths.tolist(), offsets.tolist())
        return np.array(decoder.decode_with_indexes(payload, *model), np.int32)

    frames = [frame.ravel().astype(np.int32) for frame in sample.frames]
    payloads = [encode(frame) for frame in frames]
    for frame, payload in zip(frames, payloads, strict=True):
        assert np.array_equal(decode(payload), frame)
    return Contender(
        f"compressai {importlib.metadata.version('compressai')}",
        [lambda frame=frame: encode(frame) for frame in frames],  # type: ignore[misc]
        [lambda payload=payload: decode(payload) for payload in payloads],  # type: ignore[misc]
        [len(payload) for payload in payloads],
    )


# ------------------------------------------------------------------------------------------------------- all of them


class Peer(NamedTuple):
    """Contenders of one package, the fastest of which counts."""

    package: str
    contenders: list[Contender]
    missing: str
    """Why there are none."""


def peers_of(sample: Sample) -> list[Peer]:
    """Constriction and CompressAI, where they are installed."""
    result = []
    for package, make in (("constriction", constriction_ways), ("compressai", lambda s: [compressai(s)])):
        try:
            result.append(Peer(package, make(sample), ""))
        except ImportError as error:
            result.append(Peer(package, [], f"{package}: {error}"))
    return result
