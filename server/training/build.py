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
from headwater.compression.learning.reading import stored
from headwater.compression.learning.samples import normalise
from headwater.compression.manifest import LatentSpec, Manifest, Mode, Task, head_file
from headwater.compression.tables import PriorTables
from headwater.server.training.cuts import with_cuts
from headwater.server.training.exit_files import calibrated, draft_exit, exit_answers
from headwater.server.training.graphs import Graph, decoder_graph, head_graph, local_graph, picture_graph, tail_graph
from headwater.server.training.measure import Bench, ModeRun, local_logits
from headwater.server.training.metrics import Scores, score

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from headwater.compression.image import InputSpec
    from headwater.compression.learning.samples import Samples
    from headwater.server.training.lite import Lite0
    from headwater.server.training.student import Student

MOST_SYMBOL = 511
"""Largest magnitude with a slot of its own; beyond it a symbol is escaped."""
PRIOR_SHARE = 0.01
"""Weight of the learnt density beside the counts of the training images: it gives unseen symbols their slots."""
GOLDEN_IMAGES = 2
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
    """Make the bundle: draft without figures, measure the draft, write the figures into the manifest."""
    student.eval()
    teacher.eval()
    files, modes, latent = _graphs(student, teacher, spec, tasks)
    tables = build_tables(student, train, latent)
    files["tables.safetensors"] = to_safetensors(tables.arrays())
    files["weights.safetensors"] = to_safetensors(stored(student.frozen()))
    manifest = Manifest(
        name=name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        input=spec,
        latent=latent,
        modes=modes,
        tasks=tuple(tasks),
        recipe=student.recipe.to_json(),
        data=data,
    )
    images = test.images.numpy()
    draft = Bundle.build(manifest, files)
    bench = Bench(draft, images)
    if student.exit is not None:
        draft = draft_exit(draft, student, bench, train, test)
        bench = bench.of(draft)
    runs = tuple(bench.run(mode) for mode in modes)
    files = {name: draft.read(name) for name in draft.manifest.files}
    files["golden.safetensors"] = to_safetensors(golden(bench, runs))
    labels = {name: label.numpy() for name, label in test.labels.items()}
    scored = (measured(mode, run, labels) for mode, run in zip(modes, runs, strict=True))
    measured_modes = tuple(with_cuts(mode, bench, labels) for mode in scored)
    first = tasks[0].name
    local = score(local_logits(draft, images), labels[first])
    figures: dict[str, Any] = {"test_images": len(test), "local": {first: dataclasses.asdict(local)}}
    if student.exit is not None:
        answers = exit_answers(student.exit, bench)
        files[ExitTables.FILE], figures["local_exit"] = calibrated(draft, runs, answers, labels[first])
    manifest = dataclasses.replace(
        draft.manifest, modes=measured_modes, measured={**_costs(files, student, teacher, spec), **figures}
    )
    return Built(Bundle.build(manifest, files), runs)


@torch.no_grad()
def build_tables(student: Student, samples: Samples, latent: LatentSpec) -> PriorTables:
    """Integer tables of every mode: counts over the training images, smoothed by the learnt density."""
    recipe = student.recipe
    modes, C = len(recipe.widths) * recipe.gains, recipe.latent_channels
    counts = np.zeros((modes, C, 2 * MOST_SYMBOL + 2))
    for w, width in enumerate(recipe.widths):
        for images in samples.images.split(64):
            y = student.head(normalise(images), width)
            for mode in range(w * recipe.gains, (w + 1) * recipe.gains):
                symbols = (y * student.gains.gain()[mode][None, :, None, None]).round().numpy()
                for c in range(C):
                    counts[mode, c] += _histogram(symbols[:, c])
    learnt = student.prior.probabilities(-MOST_SYMBOL, MOST_SYMBOL).numpy()
    beyond = np.maximum(1 - learnt.sum(axis=2, keepdims=True), 1e-6)
    total = counts.sum(axis=2, keepdims=True)
    weights = counts + PRIOR_SHARE * total * np.concatenate([learnt, beyond], axis=2)
    return PriorTables.from_counts(
        [list(mode) for mode in weights],
        [[-MOST_SYMBOL] * C] * modes,
        student.gains.gain().numpy(),
        student.gains.step().numpy(),
        recipe.group_ends,
        plane=latent.height * latent.width,
    )


def _histogram(symbols: NDArray[np.float32]) -> NDArray[np.int64]:
    """Counts of -MOST_SYMBOL .. MOST_SYMBOL and, last, of all symbols beyond."""
    flat = symbols.ravel().astype(np.int64)
    inside = np.abs(flat) <= MOST_SYMBOL
    index = np.where(inside, flat + MOST_SYMBOL, 2 * MOST_SYMBOL + 1)
    return np.bincount(index, minlength=2 * MOST_SYMBOL + 2)


def _graphs(
    student: Student, teacher: Lite0, spec: InputSpec, tasks: Sequence[Task]
) -> tuple[dict[str, bytes], tuple[Mode, ...], LatentSpec]:
    recipe = student.recipe
    with torch.no_grad():
        latent = LatentSpec(*student.head(torch.zeros(1, *spec.shape), recipe.widths[-1]).shape[1:])
    files: dict[str, bytes] = {}
    modes: list[Mode] = []
    for width in recipe.widths:
        files[head_file(width)], graph = head_graph(student.head, width, spec)
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
            for gain in range(recipe.gains)
        ]
    files["decoder.onnx"], _ = decoder_graph(student.decoder, latent.height)
    for task, (data, _) in zip(tasks, _tail_graphs(student, latent.height), strict=True):
        files[task.tail_file] = data
    files["local.onnx"], _ = local_graph(teacher, spec)
    return files, tuple(modes), latent


def _tail_graphs(student: Student, side: int) -> list[tuple[bytes, Graph]]:
    """Those of the tasks with labels, then that of ``reconstruct`` where there is one."""
    features = student.decoder.leave.out_channels
    made = [tail_graph(tail, features, side) for tail in student.typed_tails()]
    return made if student.picture is None else [*made, picture_graph(student.picture, features, side)]


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


def _costs(files: Mapping[str, bytes], student: Student, teacher: Lite0, spec: InputSpec) -> dict[str, Any]:
    side = student.head(torch.zeros(1, *spec.shape), student.recipe.widths[-1]).shape[-1]
    _, decoder = decoder_graph(student.decoder, side)
    _, local = local_graph(teacher, spec)
    return {
        "decoder_macs": decoder.macs,
        "tail_macs": sum(tail.macs for _, tail in _tail_graphs(student, side)),
        "local_macs": local.macs,
        "local_parameters": local.parameters,
        "bundle_bytes": sum(map(len, files.values())),
    }
