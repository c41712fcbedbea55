"""Ours: the pipeline that ships, and every mode and cut of its bundle on the held-out images, with real frames.

``bundle.zip`` in the piece's folder is the bundle of the split; its ``local.onnx``, the network before the split, is
the teacher that all peers are read by or tuned from.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.study.figures import Figures
from benchmarks.study.runner import Piece
from benchmarks.study.study import OURS, TEACHER, Study, labels_of
from benchmarks.study.teacher import start_from
from headwater.server.training import pipeline
from headwater.server.training.measure import Bench, local_logits

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from rich.progress import Progress

    from benchmarks.study.plan import Plan
    from headwater.compression.bundle import Bundle
    from headwater.compression.manifest import Mode

MINUTES = 60


def pieces(plan: Plan) -> list[Piece]:
    """One a split."""
    return [
        Piece(OURS, seed, settings(plan, seed), partial(train, seed=seed), (TEACHER,), MINUTES) for seed in plan.seeds
    ]


def settings(plan: Plan, seed: int) -> dict[str, Any]:
    """What decides a bundle."""
    return {"data": plan.source, "recipe": plan.recipe_of(seed).to_json()}


def train(study: Study, folder: Path, progress: Progress, seed: int) -> dict[str, Any]:
    """Train, write the bundle with its report, measure what was written."""
    prepared = study.prepared(seed)
    start_from(study, seed, folder)
    built, run = pipeline.train(prepared, study.plan.recipe_of(seed), folder, progress)
    bundle = pipeline.publish(built, run, prepared, folder / "bundle.zip")
    train_labels = labels_of(prepared.train, prepared)
    usual = int(np.bincount(train_labels).argmax())
    return measure(bench_of(bundle, prepared.test.images.numpy()), labels_of(prepared.test, prepared), usual)


def bench_of(bundle: Bundle, images: NDArray[np.uint8]) -> Bench:
    """Measure the first task of a bundle on images [N, C, H, W]."""
    return Bench(bundle, images, bundle.manifest.tasks[:1])


def measure(bench: Bench, labels: NDArray[np.int64], usual: int, cuts: Sequence[int] | None = None) -> dict[str, Any]:
    """Every mode and cut, the teacher, and what a sender of nothing gets, who answers `usual`.

    ``labels``: [N]. ``cuts``: channel groups after which frames are cut; None for every number of them.
    """
    bundle, images = bench.bundle, bench.images
    raw = np.full(len(images), images[0].size)
    local = Figures.of(raw, local_logits(bundle, images), labels)
    return {
        "bundle": bundle.id.hex(),
        "teacher": bundle.manifest.files["local.onnx"].sha256,
        "images": len(images),
        "local": local.to_json(),
        "local_macs": bundle.manifest.measured["local_macs"],
        "nothing": Figures.of_nothing(usual, labels).to_json(),
        "modes": [_mode(bench, mode, labels, cuts) for mode in bundle.manifest.modes],
    }


def _mode(bench: Bench, mode: Mode, labels: NDArray[np.int64], cuts: Sequence[int] | None) -> dict[str, Any]:
    G = len(bench.bundle.tables.group_ends)
    wanted = range(1, G + 1) if cuts is None else {*cuts, G}
    rows = [figures(bench, mode, groups, labels) if groups in wanted else None for groups in range(1, G + 1)]
    return {
        "index": mode.index,
        "width": mode.width,
        "gain": mode.gain,
        "head_macs": mode.head_macs,
        "figures": rows[-1],
        "cuts": rows[:-1],
    }


def figures(bench: Bench, mode: Mode, groups: int, labels: NDArray[np.int64]) -> dict[str, Any]:
    """A mode, its frames cut after so many groups; ``labels``: [N]."""
    run = bench.run(mode, groups)
    task = bench.bundle.manifest.tasks[0].name
    return Figures.of(run.sizes, run.logits[task], labels).to_json()
