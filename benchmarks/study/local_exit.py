"""The local exit of our bundle with ``--max-drop 0.5``, in every mode, on images that had no part in its threshold.

The exit's temperature and threshold are set anew from nine tenths of the held-out images and tried on the tenth, ten
times (:func:`headwater.server.training.calibration.cross_fitted`); what is lost is counted against always sending, on
the same images, with the answers of the bundle as it ships.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.study.ours import bench_of
from benchmarks.study.runner import Piece
from benchmarks.study.stated import MAX_DROP
from benchmarks.study.study import OURS, Study, labels_of
from headwater.compression.inference import session
from headwater.server.training.calibration import cross_fitted

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from rich.progress import Progress

    from benchmarks.study.plan import Plan
    from headwater.server.training.measure import Bench

MINUTES = 2


def pieces(plan: Plan) -> list[Piece]:
    """One on each split: it is cheap."""
    return [
        Piece("exit", seed, {"max_drop": MAX_DROP}, partial(score, seed=seed), (OURS,), MINUTES) for seed in plan.seeds
    ]


def score(study: Study, _: Path, __: Progress, seed: int) -> dict[str, Any]:
    """The exit of our bundle of a split."""
    prepared = study.prepared(seed)
    return measure(bench_of(study.bundle(seed), prepared.test.images.numpy()), labels_of(prepared.test, prepared))


def measure(bench: Bench, labels: NDArray[np.int64]) -> dict[str, Any]:
    """What the exit does beside every mode on the bench's images, with labels [N] of its task, the bundle's first."""
    bundle = bench.bundle
    if bundle.manifest.exit is None:
        return {"missing": "the bundle has no local exit"}
    task = bundle.manifest.exit.task
    network = session(bundle.read("exit.onnx"))
    answers = {
        width: _logits(network, bench.latents(width), index) for index, width in enumerate(bundle.manifest.widths)
    }
    return {
        "modes": [_mode(answers[mode.width], bench.run(mode).logits[task], labels) for mode in bundle.manifest.modes]
    }


def _mode(exit_logits: NDArray[np.float32], logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
    found = cross_fitted(exit_logits, logits, labels, MAX_DROP)
    kept = ("share", "drop", "drop_error", "calibration_error")
    return {name: round(float(getattr(found, name)), 5) for name in kept}


def _logits(network: Any, latents: NDArray[np.float32], width: int) -> NDArray[np.float32]:  # noqa: ANN401 - untyped
    """Answers [N, K] to latents [N, C_w, H, W] of a width, one at a time as on a device; channels it lacks are 0."""
    (channels,) = (each.shape[1] for each in network.get_inputs() if each.name == "latent")
    latents = np.pad(latents, ((0, 0), (0, channels - latents.shape[1]), (0, 0), (0, 0)))
    feed = {"width": np.array([width], np.int64)}
    return np.concatenate([network.run(["logits"], {"latent": one[np.newaxis], **feed})[0] for one in latents])
