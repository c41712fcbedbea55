"""zstd on an 8-bit bottleneck: what is left of ours without a learnt prior, and the classic way to split a network.

Three rows a split, zstd at level 19 without magic, size or checksum, and a header as long as ours:

    latent, our gains     the latent of width 1 at our learnt gains, rounded, clipped to int8, symbol by symbol
    latent, 8 bit         the same latent, each channel scaled to -127..127 by its largest training value
    features, 8 bit       the teacher's own features at the cut, likewise; read by the teacher's own tail
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import zstandard

from benchmarks.study import learning
from benchmarks.study.figures import Figures
from benchmarks.study.runner import Piece
from benchmarks.study.study import OURS, Study, labels_of
from headwater.compression.inference import quantise
from headwater.compression.learning.samples import normalise
from headwater.server.training.measure import Bench

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from rich.progress import Progress

    from benchmarks.study.plan import Plan
    from headwater.compression.manifest import Mode

HEADER_BYTES = 3
"""Of a whole frame of ours in the stream form."""
LEVEL = 19
MINUTES = 3


def pieces(plan: Plan) -> list[Piece]:
    """One on each narrow split."""
    return [
        Piece("zstd", seed, {"level": LEVEL}, partial(score, seed=seed), (OURS,), MINUTES) for seed in plan.narrow_seeds
    ]


def score(study: Study, _: Path, __: Progress, seed: int) -> dict[str, Any]:
    """All rows on the held-out images."""
    prepared, bundle = study.prepared(seed), study.bundle(seed)
    labels = labels_of(prepared.test, prepared)
    bench = Bench(bundle, prepared.test.images.numpy(), bundle.manifest.tasks[:1])
    widest = [mode for mode in bundle.manifest.modes if mode.width == bundle.manifest.widths[-1]]
    latents = bench.latents(widest[-1].width)
    rows = [_at_gain(bench, mode, latents, labels) for mode in widest]
    whole = Bench(bundle, prepared.train.images.numpy()).latents(widest[-1].width)
    rows.append(_at_eight_bits(bench, widest[-1], latents, eight_bits(whole), labels))
    return {"rows": [*rows, _features(study, seed)]}


def _at_gain(bench: Bench, mode: Mode, latents: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, Any]:
    tables = bench.bundle.tables
    gain, step = tables.gain[mode.index], tables.step[mode.index]
    symbols = np.stack([np.clip(quantise(latent, gain), -128, 127).astype(np.int8) for latent in latents])
    figures = _answered(bench, mode, symbols, symbols * step[:, np.newaxis, np.newaxis], labels)
    return {"setting": f"latent, our gain {mode.gain}", "figures": figures}


def _at_eight_bits(
    bench: Bench, mode: Mode, latents: NDArray[np.float32], gain: NDArray[np.float32], labels: NDArray[np.int64]
) -> dict[str, Any]:
    symbols = np.stack([np.clip(quantise(latent, gain), -128, 127).astype(np.int8) for latent in latents])
    # The decoder of the finest mode expects what that mode's own rounding leaves: nearly the latent itself, times
    # gain and step, which training does not keep at 1.
    tables = bench.bundle.tables
    drift = tables.gain[mode.index] * tables.step[mode.index]
    rebuilt = symbols / gain[:, np.newaxis, np.newaxis] * drift[:, np.newaxis, np.newaxis]
    return {"setting": "latent, 8 bit", "figures": _answered(bench, mode, symbols, rebuilt, labels)}


def _answered(
    bench: Bench, mode: Mode, symbols: NDArray[np.int8], rebuilt: NDArray[Any], labels: NDArray[np.int64]
) -> dict[str, Any]:
    feed = {"latent": rebuilt.astype(np.float32), "mode": np.full(len(rebuilt), mode.index, np.int64)}
    (features,) = bench.decoder.run(["features"], feed)
    (logits,) = bench.tails[bench.bundle.manifest.tasks[0].name].run(["logits"], {"features": features})
    return Figures.of(sizes_of(symbols), logits, labels).to_json()


@torch.no_grad()
def _features(study: Study, seed: int) -> dict[str, Any]:
    """The teacher split as it is."""
    prepared, teacher = study.prepared(seed), study.teacher(seed)
    train = learning.answers(lambda x: teacher.features(normalise(x)), prepared.train.images)
    test = learning.answers(lambda x: teacher.features(normalise(x)), prepared.test.images)
    gain = eight_bits(train)
    symbols = np.stack([np.clip(quantise(one, gain), -128, 127).astype(np.int8) for one in test])
    rebuilt = torch.from_numpy(symbols / gain[:, np.newaxis, np.newaxis]).float()
    tail = next(teacher.typed_tails())
    figures = Figures.of(sizes_of(symbols), learning.answers(tail, rebuilt), labels_of(prepared.test, prepared))
    return {"setting": "features, 8 bit", "figures": figures.to_json()}


def eight_bits(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Gain of each channel [C] of values [N, C, H, W] that brings its largest magnitude to 127."""
    return np.asarray(127 / np.maximum(np.abs(values).max(axis=(0, 2, 3)), 1e-6), np.float32)


def sizes_of(symbols: NDArray[np.int8]) -> NDArray[np.int64]:
    """Bytes of each frame of symbols [N, C, H, W], header included."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL, format=zstandard.FORMAT_ZSTD1_MAGICLESS, write_content_size=False, write_checksum=False
    )
    packer = zstandard.ZstdCompressor(compression_params=parameters)
    return np.array([HEADER_BYTES + len(packer.compress(frame.tobytes())) for frame in symbols], np.int64)
