"""What a byte buys: every mode of a bundle beside JPEG and WebP, on the same held-out photographs.

    python -m benchmarks.rate_accuracy [--bundle PATH] [--quick] [--json PATH]

The bundle's held-out images go through each mode (heads, coder, frames, decoder and tails as shipped), and through
every codec setting of :mod:`headwater.simulations.codecs` into the bundle's own unsplit network. Ours are bytes of
whole frames, header included; those of codecs leave out what is the same in all files. One split of one data set: the
standard error stands beside each accuracy.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import claims
from headwater.compression.bundle import Bundle
from headwater.compression.datasets import open_dataset, split
from headwater.server.training.measure import Bench
from headwater.simulations import codecs
from headwater.simulations.demo import shipped_bundle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from PIL import Image

    from headwater.compression.manifest import Mode

NAME = "rate_accuracy"
TOLERANCE = 0.01
"""A point: how far below ours a codec's accuracy may be and still count as the same."""
QUICK_IMAGES = 48
QUICK_QUALITIES = (25, 75)


@dataclass(frozen=True)
class Point:
    """One mode on the held-out images."""

    mode: Mode
    mean_bytes: float
    correct: NDArray[np.bool_]

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return float(self.correct.mean())


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print both tables, and state the claims."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--bundle", type=Path, default=None)
    own, rest = parser.parse_known_args(sys.argv[1:] if arguments is None else arguments)
    options = claims.options(__doc__, rest)
    bundle = Bundle.load(shipped_bundle() if own.bundle is None else own.bundle)
    pictures, labels = held_out(bundle, QUICK_IMAGES if options.quick else None)
    points = measure(bundle, pictures, labels)
    settings = codecs.grid(bundle.manifest.input)
    if options.quick:
        settings = [setting for setting in settings if setting.quality in QUICK_QUALITIES]
    scored = codecs.score(bundle, pictures, labels.tolist(), settings=settings)
    console = Console()
    console.print(_modes_table(points), _codecs_table(scored))
    return claims.report("Rate and accuracy", state(points, scored), options)


def held_out(bundle: Bundle, most: int | None) -> tuple[list[Image.Image], NDArray[np.int64]]:
    """The images that the bundle did not learn from, split by the seed in its recipe, with labels of its first task."""
    recipe, data = bundle.manifest.recipe, bundle.manifest.data
    _, test = split(open_dataset(data["name"]), recipe["test_share"], recipe["seed"])
    items = test.items[: len(test.items) if most is None else most]
    return [item.load() for item in items], test.labels(bundle.manifest.tasks[0].name)[: len(items)]


def measure(bundle: Bundle, pictures: Sequence[Image.Image], labels: NDArray[np.int64]) -> list[Point]:
    """Every mode on the same pictures."""
    bench = Bench(bundle, np.stack([bundle.manifest.input.apply(picture) for picture in pictures]))
    task = bundle.manifest.tasks[0].name
    runs = [(mode, bench.run(mode)) for mode in bundle.manifest.modes]
    return [Point(mode, float(run.sizes.mean()), run.logits[task].argmax(axis=1) == labels) for mode, run in runs]


def state(points: Sequence[Point], scored: Sequence[codecs.Scored]) -> list[claims.Claim]:
    """The span of bytes, the loss to the unsplit network, and the saving against each codec at two operating points.

    The points are set beforehand, not picked by how well they look: the coarsest gain of the widest head, and the
    fewest bytes within a point of the unsplit network.
    """
    sizes = [point.mean_bytes for point in points]
    best = max(points, key=lambda point: (point.accuracy, -point.mean_bytes))
    untouched = scored[0].accuracy
    span = max(sizes) / min(sizes)
    lost = 100 * (untouched - best.accuracy)
    best_text = f"accuracy lost by the best mode ({best.mean_bytes:.0f} bytes)"
    coarse = next(point for point in points if point.mode.width == points[-1].mode.width)
    faithful = [point for point in points if point.accuracy >= untouched - TOLERANCE]
    stated = [
        claims.at_least(NAME, "largest over smallest mean frame of a bundle", span, unit="x", target=8, peer="itself"),
        claims.at_most(NAME, best_text, lost, unit="points", target=1, peer=f"its unsplit network, {untouched:.1%}"),
        *_savings("widest head, coarsest gain", coarse, scored, target=10),
    ]
    if faithful:
        frugal = min(faithful, key=lambda point: point.mean_bytes)
        stated += _savings("within a point of the unsplit network", frugal, scored, target=30)
    return stated


def _savings(where: str, point: Point, scored: Sequence[codecs.Scored], target: float) -> list[claims.Claim]:
    """How many times our bytes each codec needs to be as accurate, or at most a point less."""
    stated = []
    for codec in ("WebP", "JPEG"):
        peer = codecs.cheapest(scored, codec, point.accuracy, TOLERANCE)
        if peer is None:
            ratio, text = None, f"no {codec} setting comes within a point of {point.accuracy:.1%}"
        else:
            ratio = float(peer.sizes.mean()) / point.mean_bytes
            text = f"{peer.setting}, {peer.sizes.mean():.0f} bytes, {peer.accuracy:.1%}, read by the unsplit network"
        what = f"{codec} bytes over ours, {where} ({point.mean_bytes:.0f} bytes, {point.accuracy:.1%})"
        stated.append(claims.at_least(NAME, what, ratio, unit="x", target=target, peer=text))
    return stated


def _modes_table(points: Sequence[Point]) -> Table:
    table = Table(title="Modes", title_justify="left")
    for column in ("mode", "width", "gain", "bytes", "accuracy", "std. error"):
        table.add_column(column, justify="right")
    for point in points:
        error = codecs.standard_error(point.accuracy, len(point.correct))
        mode = point.mode
        row = (
            mode.index,
            f"{mode.width:g}",
            mode.gain,
            f"{point.mean_bytes:.1f}",
            f"{point.accuracy:.1%}",
            f"{error:.1%}",
        )
        table.add_row(*map(str, row))
    return table


def _codecs_table(scored: Sequence[codecs.Scored]) -> Table:
    table = Table(title="Image codecs, read by the unsplit network", title_justify="left")
    for column in ("setting", "bytes", "accuracy"):
        table.add_column(column, justify="right")
    for one in scored:
        table.add_row(str(one.setting or "nothing lost"), f"{one.sizes.mean():.0f}", f"{one.accuracy:.1%}")
    return table


if __name__ == "__main__":
    sys.exit(main())
