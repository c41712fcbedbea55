"""From a trained student to a bundle: integer tables, graphs, weights, and the figures of every mode.

Legend: M modes, N images, C latent channels, H W latent height and width.
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headwater.compression.bundle import Bundle, to_safetensors
from headwater.compression.exits import ExitTables
from headwater.compression.learning.reading import WEIGHTS, stored
from headwater.compression.learning.samples import normalise
from headwater.compression.manifest import LatentSpec, Manifest, Mode, Task, head_file
from headwater.compression.tables import PriorTables
from headwater.server.training.cuts import with_cuts
from headwater.server.training.exit_files import calibrated, draft_exit, exit_answers
from headwater.server.training.graphs import decoder_graph, head_graph, local_graph, picture_graph, tail_graph
from headwater.server.training.measure import Bench, ModeRun, local_logits
from headwater.server.training.metrics import Scores, score
from headwater.server.training.reconstruct import RECONSTRUCT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from headwater.compression.image import InputSpec
    from headwater.compression.learning.network import SplitNetwork
    from headwater.compression.learning.samples import Samples
    from headwater.server.training.lite import Lite0
    from headwater.server.training.student import Student

MOST_SYMBOL = 511
"""Largest magnitude with a slot of its own; beyond it a symbol is escaped."""
PRIOR_SHARE = 0.01
"""Weight of the learnt density beside the counts of the training images: it gives unseen symbols their slots."""
GOLDEN_IMAGES = 2
WHOLE = "local.onnx"
_UNMEASURED: dict[str, Any] = {
    "mean_bytes": 0.0,
    "p95_bytes": 0.0,
    "accuracy": {},
    "balanced_accuracy": {},
    "auroc": {},
}


@dataclasses.dataclass(frozen=True)
class Built:
    """A finished bundle and what was measured on the way."""

    bundle: Bundle
    runs: tuple[ModeRun, ...]
    """Held-out answers of every mode, to the tasks that were trained."""


def build(
    student: Student,
    teacher: Lite0,
    train: Samples,
    test: Samples,
    *,
    name: str,
    spec: InputSpec,
    tasks: Sequence[Task],
    data: Mapping[str, Any],
) -> Built:
    """Make the bundle of a student, with its teacher as the whole model."""
    student.eval()
    teacher.eval()
    graphs = split_graphs(student, spec, tasks)
    files, macs = graphs.files, dict(graphs.macs)
    if student.picture is not None:
        features = student.decoder.leave.out_channels
        files[RECONSTRUCT.tail_file], picture = picture_graph(student.picture, features, graphs.latent.height)
        macs["tail_macs"] += picture.macs
    files[WHOLE], local = local_graph(teacher, spec)
    files[WEIGHTS] = to_safetensors(stored(student.frozen()))
    manifest = Manifest(
        name=name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        input=spec,
        latent=graphs.latent,
        modes=graphs.modes,
        tasks=tuple(tasks),
        recipe=student.recipe.to_json(),
        data=data,
        measured={**macs, "local_macs": local.macs, "local_parameters": local.parameters},
    )
    return finish(manifest, files, student, train, test)


def finish(
    manifest: Manifest, files: Mapping[str, bytes], network: SplitNetwork, train: Samples, test: Samples
) -> Built:
    """Add tables, exit and golden inputs to the graphs, measure every mode, and write that into the manifest.

    Args:
        manifest: without figures of the modes, and without an exit.
        files: graphs and weights.
        network: that they were made from.
        train: images that tables and opinions are made from.
        test: images that it is measured on, and confidence is calibrated by.
    """
    tables = build_tables(network, train, manifest.latent)
    images, modes, first = test.images.numpy(), manifest.modes, manifest.tasks[0].name
    draft = Bundle.build(manifest, {**files, "tables.safetensors": to_safetensors(tables.arrays())})
    bench = Bench(draft, images)
    if network.exit is not None:
        draft = draft_exit(draft, network, bench, train, test)
        bench = bench.of(draft)
    runs = tuple(bench.run(mode) for mode in modes)
    files = {name: draft.read(name) for name in draft.manifest.files}
    files["golden.safetensors"] = to_safetensors(golden(bench, runs))
    labels = {name: label.numpy() for name, label in test.labels.items()}
    scored = (measured(mode, run, labels) for mode, run in zip(modes, runs, strict=True))
    measured_modes = tuple(with_cuts(mode, bench, labels) for mode in scored)
    local = score(local_logits(draft, images), labels[first])
    figures: dict[str, Any] = {"test_images": len(test), "local": {first: dataclasses.asdict(local)}}
    if network.exit is not None:
        answers = exit_answers(network.exit, bench)
        files[ExitTables.FILE], figures["local_exit"] = calibrated(draft, runs, answers, labels[first])
    figures["bundle_bytes"] = sum(map(len, files.values()))
    manifest = dataclasses.replace(draft.manifest, modes=measured_modes, measured={**manifest.measured, **figures})
    return Built(Bundle.build(manifest, files), runs)


@torch.no_grad()
def build_tables(network: SplitNetwork, samples: Samples, latent: LatentSpec) -> PriorTables:
    """Integer tables of every mode: counts over the training images, smoothed by the learnt density."""
    modes, C, steps = network.modes, latent.channels, network.steps
    counts = np.zeros((modes, C, 2 * MOST_SYMBOL + 2))
    for w, width in enumerate(network.widths):
        for images in samples.images.split(64):
            y = network.head(normalise(images), width)
            for mode in range(w * steps, (w + 1) * steps):
                symbols = (y * network.gains.gain()[mode][None, :, None, None]).round().numpy()
                for c in range(C):
                    counts[mode, c] += _histogram(symbols[:, c])
    learnt = network.prior.probabilities(-MOST_SYMBOL, MOST_SYMBOL).numpy()
    beyond = np.maximum(1 - learnt.sum(axis=2, keepdims=True), 1e-6)
    total = counts.sum(axis=2, keepdims=True)
    weights = counts + PRIOR_SHARE * total * np.concatenate([learnt, beyond], axis=2)
    return PriorTables.from_counts(
        [list(mode) for mode in weights],
        [[-MOST_SYMBOL] * C] * modes,
        network.gains.gain().numpy(),
        network.gains.step().numpy(),
        network.group_ends,
        plane=latent.height * latent.width,
    )


def _histogram(symbols: NDArray[np.float32]) -> NDArray[np.int64]:
    """Counts of -MOST_SYMBOL .. MOST_SYMBOL and, last, of all symbols beyond."""
    flat = symbols.ravel().astype(np.int64)
    inside = np.abs(flat) <= MOST_SYMBOL
    index = np.where(inside, flat + MOST_SYMBOL, 2 * MOST_SYMBOL + 1)
    return np.bincount(index, minlength=2 * MOST_SYMBOL + 2)


@dataclasses.dataclass(frozen=True)
class Graphs:
    """What a split network is at inference, before anything is measured."""

    files: dict[str, bytes]
    modes: tuple[Mode, ...]
    latent: LatentSpec
    macs: Mapping[str, int]


def split_graphs(network: SplitNetwork, spec: InputSpec, tasks: Sequence[Task]) -> Graphs:
    """The graphs of heads, decoder and the tails of tasks with labels."""
    with torch.no_grad():
        latent = LatentSpec(*network.head(torch.zeros(1, *spec.shape), network.widths[-1]).shape[1:])
    files: dict[str, bytes] = {}
    modes: list[Mode] = []
    for width in network.widths:
        files[head_file(width)], graph = head_graph(network.head, width, spec)
        modes += [
            Mode(
                index=len(modes) + gain,
                width=width,
                gain=gain,
                channels=latent.channels,
                head_macs=graph.macs,
                head_parameters=graph.parameters,
                **_UNMEASURED,
            )
            for gain in range(network.steps)
        ]
    files["decoder.onnx"], decoder = decoder_graph(network.decoder, latent.height)
    features, tail_macs = network.decoder.leave.out_channels, 0
    for task, tail in zip((task for task in tasks if task.labels), network.typed_tails(), strict=True):
        files[task.tail_file], graph = tail_graph(tail, features, latent.height)
        tail_macs += graph.macs
    return Graphs(files, tuple(modes), latent, {"decoder_macs": decoder.macs, "tail_macs": tail_macs})


def measured(mode: Mode, run: ModeRun, labels: Mapping[str, NDArray[np.int64]]) -> Mode:
    """The mode with what a run of it gave, beside the figures of other tasks that it has already."""
    scores: dict[str, Scores] = {task: score(logits, labels[task]) for task, logits in run.logits.items()}
    return dataclasses.replace(
        mode,
        mean_bytes=round(float(run.sizes.mean()), 2),
        p95_bytes=round(float(np.percentile(run.sizes, 95)), 1),
        accuracy={**mode.accuracy, **{task: round(s.accuracy, 5) for task, s in scores.items()}},
        balanced_accuracy={
            **mode.balanced_accuracy,
            **{task: round(s.balanced_accuracy, 5) for task, s in scores.items()},
        },
        auroc={**mode.auroc, **{task: round(s.auroc, 5) for task, s in scores.items() if s.auroc is not None}},
        psnr_db={**mode.psnr_db, **{task: round(float(each.mean()), 2) for task, each in run.psnr_db.items()}},
    )


def golden(bench: Bench, runs: Sequence[ModeRun]) -> dict[str, NDArray[Any]]:
    """A few images, the latent of every width and the answers of every mode: a loaded bundle can check itself.

    Pictures are left out: twenty modes of them would be as large as the tails.
    """
    count = min(GOLDEN_IMAGES, len(bench.images))
    arrays: dict[str, NDArray[Any]] = {"image": bench.images[:count]}
    for width in bench.bundle.manifest.widths:
        arrays[f"latent_{width:g}"] = bench.latents(width)[:count]
    for name in runs[0].logits:
        arrays[f"logits_{name}"] = np.stack([run.logits[name][:count] for run in runs])
    return arrays
