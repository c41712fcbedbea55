"""From a trained exit to the files of a bundle: its graph, its opinions, its calibration, and figures for people.

Twice, as everything that is measured is: :func:`draft_exit` puts graph and opinions into a bundle whose modes are still
to be measured, since an opinion is part of what a frame says; :func:`calibrated` is what the exit is worth beside what
was measured then.

Legend: N images, K classes, O opinions.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headwater.compression.bundle import Bundle, to_safetensors
from headwater.compression.exits import SCORES, ExitTables
from headwater.compression.learning.samples import normalise
from headwater.compression.manifest import Exit
from headwater.server.training.calibration import calibrate, cross_fitted
from headwater.server.training.graphs import exit_graph
from headwater.server.training.opinions import codebook

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headwater.compression.learning.exit_net import ExitNet
    from headwater.compression.learning.network import SplitNetwork
    from headwater.compression.learning.samples import Samples
    from headwater.compression.manifest import Manifest
    from headwater.server.training.measure import Bench, ModeRun

STATED_DROPS = (0.5, 1.0, 2.0)
"""Points of accuracy for which the report says what is answered on the device."""
OPINION_IMAGES = 1024
"""So many training images are enough for the opinions."""


def draft_exit(bundle: Bundle, network: SplitNetwork, bench: Bench, samples: Samples, test: Samples) -> Bundle:
    """The bundle with graph and opinions of the exit of its first task.

    Args:
        bundle: without an exit.
        network: with one, finished.
        bench: of the bundle and the held-out images.
        samples: the training images, from which the opinions come.
        test: the held-out images, by which confidence is calibrated.
    """
    manifest, model = bundle.manifest, network.exit
    assert model is not None
    answers, labels, width_of = (
        exit_answers(model, bench),
        test.labels[manifest.tasks[0].name].numpy(),
        _width_of(manifest),
    )
    opinions = codebook(_learnt_answers(model, network, samples))
    # Nothing is lost yet, since nothing is known yet of what the server answers.
    tables = calibrate(answers, [answers[width] for width in width_of], labels, width_of, opinions)
    graph, plan = exit_graph(model, tables.temperature)
    files = {name: bundle.read(name) for name in manifest.files}
    files |= {"exit.onnx": graph, ExitTables.FILE: to_safetensors(tables.arrays())}
    return Bundle.build(dataclasses.replace(manifest, exit=Exit(manifest.tasks[0].name, plan.macs)), files)


def calibrated(
    draft: Bundle, runs: Sequence[ModeRun], answers: Sequence[NDArray[np.float32]], labels: NDArray[np.int64]
) -> tuple[bytes, dict[str, Any]]:
    """``exit.safetensors`` of a draft whose modes were run, and figures on the exit.

    Args:
        draft: with the exit.
        runs: of every mode, with opinions.
        answers: the exit's, of every width, [N, K] each, before any temperature.
        labels: [N].
    """
    manifest = draft.manifest
    task = manifest.tasks[0].name
    server = [run.logits[task] for run in runs]
    tables = calibrate(answers, server, labels, _width_of(manifest), draft.exits.opinions)
    figures = {
        "images": len(labels),
        "accuracy": [float((logits.argmax(axis=1) == labels).mean()) for logits in answers],
        "calibration_error": tables.calibration_error.round(5).tolist(),
        "cascades": _cascades(manifest, runs, answers, labels),
    }
    return to_safetensors(tables.arrays()), figures


@torch.no_grad()
def exit_answers(model: ExitNet, bench: Bench) -> list[NDArray[np.float32]]:
    """The exit's logits to the bench's images [N, K] at each width, before any temperature."""
    return [
        torch.cat([model(part, width) for part in torch.from_numpy(bench.latents(width)).split(256)]).numpy()
        for width in model.widths
    ]


@torch.no_grad()
def _learnt_answers(model: ExitNet, network: SplitNetwork, samples: Samples) -> NDArray[np.float32]:
    """The exit's logits to some training images at every width, [N, K]."""
    some = samples.images[:: -(-len(samples) // OPINION_IMAGES)]
    found = [model(network.head(normalise(part), width), width) for width in model.widths for part in some.split(96)]
    return torch.cat(found).numpy()


def _width_of(manifest: Manifest) -> list[int]:
    return [manifest.widths.index(mode.width) for mode in manifest.modes]


def _cascades(
    manifest: Manifest, runs: Sequence[ModeRun], answers: Sequence[NDArray[np.float32]], labels: NDArray[np.int64]
) -> list[dict[str, Any]]:
    """What each stated drop gives beside the most accurate mode of each width, cross-fitted."""
    task = manifest.tasks[0].name
    right = [float((run.logits[task].argmax(axis=1) == labels).mean()) for run in runs]
    rows: list[dict[str, Any]] = []
    for width, logits in zip(manifest.widths, answers, strict=True):
        modes = [mode.index for mode in manifest.modes if mode.width == width]
        best = max(modes, key=lambda mode: (right[mode], -runs[mode].sizes.mean()))
        for score in SCORES:
            for stated in STATED_DROPS:
                unseen = cross_fitted(logits, runs[best].logits[task], labels, stated, score)
                saved = runs[best].sizes[unseen.answered].sum() / runs[best].sizes.sum()
                rows.append(
                    {
                        "width": width,
                        "mode": best,
                        "score": score,
                        "max_drop": stated,
                        "share": round(unseen.share, 5),
                        "bytes_saved": round(float(saved), 5),
                        "drop": round(unseen.drop, 4),
                        "drop_error": round(unseen.drop_error, 4),
                    }
                )
    return rows
