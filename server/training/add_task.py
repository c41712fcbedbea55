"""A task that comes later: a new tail on a finished bundle, whose devices need not hear of it.

    OLD  -> head, tables, decoder, exit and tails, byte for byte ──────────────────────────────────┐
    data -> teacher for the task -> its answers ┐                                                  ├─> NEW
         -> OLD's own features, random modes ───┴─> new tail, from OLD's first ─> measured ─┘

NEW says that it answers for OLD: a server that serves it answers the frames of devices that have OLD, with all tasks.
The split is OLD's, so that what NEW's figures are measured on was not learnt from by any part of it.
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from headwater.compression.bundle import Bundle, to_safetensors
from headwater.compression.errors import BundleError, DataError, SettingsError
from headwater.compression.learning.reading import read_tail
from headwater.compression.learning.samples import augment, normalise
from headwater.compression.learning.tail import Tail, channels_last
from headwater.server.training import pipeline, stages
from headwater.server.training.build import Built, golden, measured
from headwater.server.training.cuts import with_cuts
from headwater.server.training.frozen import FrozenCodec
from headwater.server.training.graphs import picture_graph, tail_graph
from headwater.server.training.lite import Lite0, load_pretrained
from headwater.server.training.loop import Run, Stage
from headwater.server.training.measure import Bench
from headwater.server.training.metrics import score
from headwater.server.training.readback import restore_norms
from headwater.server.training.recipe import Recipe
from headwater.server.training.reconstruct import Reconstructor, picture_loss

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from rich.progress import Progress

    from headwater.compression.datasets import Dataset
    from headwater.compression.learning.samples import Samples
    from headwater.compression.manifest import Task
    from headwater.server.training.pipeline import Prepared

START_IMAGES = 256
FREE = frozenset(
    {
        *("teacher_epochs", "task_epochs", "batch", "teacher_rate", "tune_rate", "picture_rate", "weight_decay"),
        *("task_weight", "distill_weight", "distill_temperature", "feature_weight", "drop_groups"),
        *("label_smoothing", "class_weights", "augmentation"),
    }
)
"""Settings that a new tail may have of its own; the others are those of the head, or decide the split."""


def recipe_of(old: Bundle) -> Recipe:
    """How a bundle was trained; raises :class:`BundleError` if `headwater train` did not make it."""
    try:
        return Recipe.from_json(old.manifest.recipe)
    except SettingsError as error:
        raise BundleError(f"the bundle {old.manifest.name} {old.short_id} cannot take another task: {error}") from error


def check_changes(old: Recipe, new: Recipe) -> None:
    """Raise :class:`SettingsError` if a setting differs that is not the new tail's to choose."""
    for field in dataclasses.fields(Recipe):
        was, wanted = getattr(old, field.name), getattr(new, field.name)
        if field.name not in FREE and was != wanted:
            raise SettingsError(
                f"{field.name} is {wanted!r}, but the bundle was trained with {was!r}, and a task that is added to it "
                f"has no choice; what may be set: {', '.join(sorted(FREE))}"
            )


def prepare(source: str | Dataset, old: Bundle, name: str) -> Prepared:
    """Open the data set that a bundle was trained on, split as then, with one more task's labels.

    Raises :class:`DataError` if the bundle has the task already, the data set has not, or is another one.
    """
    have = [task.name for task in old.manifest.tasks]
    if name in have:
        raise DataError(
            f"the bundle {old.manifest.name} {old.short_id} has a task {name!r} already; it has {', '.join(have)}"
        )
    dataset = pipeline.opened(source)
    task = pipeline.task_of(dataset, name)
    if dataset.name != old.manifest.data.get("name"):
        raise DataError(
            f"the bundle {old.manifest.name} {old.short_id} was trained on {old.manifest.data.get('name')}, not on "
            f"{dataset.name}; add the task with the data that its head was trained on"
        )
    recipe = recipe_of(old)
    name_of_source = source if isinstance(source, str) else dataset.name
    # A column of labels that came since must not move images between what is learnt from and what is held out.
    by = old.manifest.data.get("split_by")
    prepared = pipeline.prepare_tasks(name_of_source, dataset, recipe, (task,), by)
    if prepared.spec != old.manifest.input:
        raise BundleError(f"the bundle's input is {old.manifest.input}, but its recipe says {prepared.spec}")
    for key, now in pipeline.provenance(prepared).items():
        if (was := old.manifest.data.get(key, now)) != now:
            raise DataError(
                f"{key} of {dataset.name} is {now} now and was {was} when the bundle {old.manifest.name} "
                f"{old.short_id} was trained; with other images or labels, what it learnt from might be held out"
            )
    return prepared


def add_task(prepared: Prepared, old: Bundle, recipe: Recipe, work: Path, progress: Progress) -> tuple[Built, Run]:
    """Train the tail of the only task that was prepared, and build the bundle that has it too.

    Raises :class:`SettingsError` if ``recipe`` differs from the bundle's own in what is not the tail's to choose.
    """
    check_changes(recipe_of(old), recipe)
    (task,) = prepared.tasks
    run = Run(work, recipe, f"{prepared.source}: {task.name} for {old.id.hex()}")
    torch.manual_seed(recipe.seed)
    codec = FrozenCodec(old, recipe)
    local: dict[str, Any] = {}
    if task.kind == "image":
        data, macs = _train_picture(prepared, old, codec, run, progress)
    else:
        teacher = _teacher(prepared, run, progress)
        data, macs = _train_tail(prepared, old, teacher, codec, run, progress)
        labels = prepared.test.labels[task.name].numpy()
        local[task.name] = dataclasses.asdict(score(_logits(teacher, prepared.test), labels))
    return _build(prepared, old, run.recipe, data, {"local": local, "tail_macs": macs}), run


def _teacher(prepared: Prepared, run: Run, progress: Progress) -> Lite0:
    """The unsplit network, fine-tuned on the new task."""
    (task,), recipe = prepared.tasks, run.recipe
    teacher = Lite0(prepared.spec.channels, [len(task.labels)], recipe.cut)
    load_pretrained(teacher)
    channels_last(teacher)
    weights = _class_weights(prepared, recipe)
    run.fit(stages.teacher_stage(teacher, prepared.train, recipe, weights, run.generator), prepared.train, progress)
    return teacher.eval()


def _train_tail(
    prepared: Prepared, old: Bundle, teacher: Lite0, codec: FrozenCodec, run: Run, progress: Progress
) -> tuple[bytes, int]:
    (task,), recipe, train = prepared.tasks, run.recipe, prepared.train
    torch.manual_seed(recipe.seed)
    tail = read_tail(old, old.manifest.tasks[0])
    start = torch.Generator().manual_seed(recipe.seed)
    restore_norms(tail, codec.random_features(train.images[:START_IMAGES], start))
    tail.classify = nn.Linear(tail.classify.in_features, len(task.labels))
    channels_last(tail)
    run.fit(_tail_stage(task, tail, teacher, codec, prepared, run), train, progress)
    start.manual_seed(recipe.seed)
    stages.recalibrate_tails(nn.ModuleList([tail]), train, lambda images: codec.random_features(images, start))
    features, side = _features_shape(codec, train)
    data, graph = tail_graph(tail, features, side)
    return data, graph.macs


def _tail_stage(task: Task, tail: Tail, teacher: Lite0, codec: FrozenCodec, prepared: Prepared, run: Run) -> Stage:
    """The tail learns the task and the teacher's answers, as in the last stage of training, but from whole pictures.

    They are mirrored at most. The shortest frames hold what their first task needs and little else; what they hold of
    another is lost on a tail that also sees the frames of pictures that were moved, brightened or pasted together.
    """
    recipe, train, generator = run.recipe, prepared.train, run.generator
    weights = _class_weights(prepared, recipe)

    def step(indices: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        pixels = _pixels(augment(train.images[indices], recipe.augmentation.mirroring, generator))
        whole = torch.ones(len(indices), dtype=torch.bool)
        with torch.no_grad():
            wanted = stages.intermediates(teacher, normalise(pixels))
        output = tail.intermediate(codec.random_features(pixels, generator))
        return stages.answers_loss([output], wanted, stages.Learnt(train, indices, whole), recipe, weights)

    optimizer = torch.optim.AdamW(tail.parameters(), lr=recipe.tune_rate, weight_decay=recipe.weight_decay)
    return Stage(f"tail {task.name}", recipe.task_epochs, tail, optimizer, step)


def _train_picture(
    prepared: Prepared, old: Bundle, codec: FrozenCodec, run: Run, progress: Progress
) -> tuple[bytes, int]:
    recipe, train, generator = run.recipe, prepared.train, run.generator
    features, side = _features_shape(codec, train)
    doublings = (old.manifest.input.height // side).bit_length() - 1
    model = Reconstructor(features, prepared.spec.channels, doublings)
    start, images = torch.Generator().manual_seed(recipe.seed), train.images[:START_IMAGES]
    model.start_from(codec.random_features(images, start), images)
    channels_last(model)

    def step(indices: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        pixels = _pixels(augment(train.images[indices], recipe.augmentation, generator))
        error = picture_loss(model(codec.random_features(pixels, generator)), pixels.float())
        return error, {"picture": error.item()}

    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.picture_rate, weight_decay=recipe.weight_decay)
    run.fit(Stage(f"tail {prepared.tasks[0].name}", recipe.task_epochs, model, optimizer, step), train, progress)
    data, graph = picture_graph(model.eval(), features, side)
    return data, graph.macs


def _build(prepared: Prepared, old: Bundle, recipe: Recipe, tail: bytes, found: dict[str, Any]) -> Built:
    """The old bundle's files and figures, with the new tail and what it gives in every mode."""
    (task,), manifest = prepared.tasks, old.manifest
    files = {name: old.read(name) for name in manifest.files if name != "MODEL_CARD.md"} | {task.tail_file: tail}
    tasks = (*manifest.tasks, task)
    new = dataclasses.replace(
        manifest,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        parent=old.id.hex(),
        answers_for=(old.id.hex(), *manifest.answers_for),
        tasks=tasks,
        recipe={**recipe.to_json(), "tasks": [each.name for each in tasks]},
    )
    bench = Bench(Bundle.build(new, files), prepared.test.images.numpy(), (task,))
    runs = tuple(bench.run(mode) for mode in manifest.modes)
    files["golden.safetensors"] = to_safetensors({**golden(bench, runs), **old.arrays("golden.safetensors")})
    labels = {name: each.numpy() for name, each in prepared.test.labels.items()}
    scored = (measured(mode, run, labels) for mode, run in zip(manifest.modes, runs, strict=True))
    modes = tuple(with_cuts(mode, bench, labels) if labels else mode for mode in scored)
    figures = {
        **manifest.measured,
        "local": {**manifest.measured["local"], **found["local"]},
        "tail_macs": manifest.measured["tail_macs"] + found["tail_macs"],
        "bundle_bytes": sum(map(len, files.values())),
    }
    return Built(Bundle.build(dataclasses.replace(new, modes=modes, measured=figures), files), runs)


def _pixels(images: torch.Tensor) -> torch.Tensor:
    """Augmented images as a camera gives them: uint8."""
    return images.round().to(torch.uint8)


def _class_weights(prepared: Prepared, recipe: Recipe) -> list[torch.Tensor]:
    return [stages.class_weights(prepared.train.labels[task.name], len(task.labels), recipe) for task in prepared.tasks]


def _features_shape(codec: FrozenCodec, samples: Samples) -> tuple[int, int]:
    """Channels and side of what a tail reads."""
    _, channels, side, _ = codec.features(samples.images[:1].numpy(), [0], [1]).shape
    return channels, side


@torch.no_grad()
def _logits(teacher: Lite0, samples: Samples) -> NDArray[np.float32]:
    return torch.cat([teacher(normalise(images))[0] for images in samples.images.split(64)]).numpy()
