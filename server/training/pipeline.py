"""The way from a data set to a bundle: split, teacher, student, tables and graphs, figures, report.

    data set -> Samples (train, test)
    train    -> teacher_stage -> match_stage -> tune_stage -> recalibrate     checkpoint after every epoch
    test     -> build: bundle with the figures of every mode -> report.html, MODEL_CARD.md

The held-out images are looked at once, at the end, by the finished bundle.
"""

from __future__ import annotations

import difflib
import hashlib
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from headwater.compression.bundle import Bundle
from headwater.compression.datasets import Dataset, open_dataset, split
from headwater.compression.errors import DataError
from headwater.compression.image import InputSpec
from headwater.compression.learning.samples import Samples, normalise
from headwater.compression.learning.tail import channels_last
from headwater.server.training import stages
from headwater.server.training.build import Built, build
from headwater.server.training.card import model_card
from headwater.server.training.exits import fit_exit
from headwater.server.training.lite import Lite0, load_pretrained
from headwater.server.training.loop import Run
from headwater.server.training.reconstruct import RECONSTRUCT
from headwater.server.training.report import write_report
from headwater.server.training.student import Student

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.progress import Progress

    from headwater.compression.manifest import Task
    from headwater.server.training.recipe import Recipe


@dataclass(frozen=True)
class Prepared:
    """A data set, ready to be learnt from."""

    source: str
    dataset: Dataset
    spec: InputSpec
    tasks: tuple[Task, ...]
    train: Samples
    test: Samples
    split_by: tuple[str, ...]
    """Tasks whose combinations of labels were split alike."""
    split: str
    """Digest of the held-out images' names."""


def prepare(source: str | Dataset, recipe: Recipe) -> Prepared:
    """Open, split and decode a data set; raises :class:`DataError` if a task of the recipe is not in it."""
    dataset = opened(source)
    return prepare_tasks(source if isinstance(source, str) else dataset.name, dataset, recipe, _tasks(dataset, recipe))


def opened(source: str | Dataset) -> Dataset:
    """The data set itself, or the one of that name."""
    dataset = source if isinstance(source, Dataset) else open_dataset(source)
    if any(task.name == RECONSTRUCT.name for task in dataset.tasks):
        raise DataError(f"{dataset.name} calls a task {RECONSTRUCT.name}, which gives a picture; give it another name")
    return dataset


def prepare_tasks(
    source: str, dataset: Dataset, recipe: Recipe, tasks: tuple[Task, ...], by: Sequence[str] | None = None
) -> Prepared:
    """Split a data set, alike in each combination of the labels of the tasks ``by`` (all), and decode it."""
    by = [task.name for task in dataset.tasks] if by is None else by
    train, test = split(dataset, recipe.test_share, recipe.seed, by=by)
    if recipe.validation_share:
        train, test = split(train, recipe.validation_share, recipe.seed + 7, by=by)
    spec = InputSpec(recipe.colour, recipe.side, recipe.side)
    names = tuple(task.name for task in tasks if task.labels)
    digest = hashlib.sha256("\n".join(sorted(item.name for item in test.items)).encode()).hexdigest()[:16]
    learnt, held_out = (Samples.read(part, spec, names) for part in (train, test))
    return Prepared(source, dataset, spec, tasks, learnt, held_out, tuple(by), digest)


def train(prepared: Prepared, recipe: Recipe, work: Path, progress: Progress) -> tuple[Built, Run]:
    """Train a student and build its bundle; ``work`` keeps the checkpoints."""
    run = Run(work, recipe, prepared.source)
    generator = run.generator
    classes = [len(task.labels) for task in prepared.tasks if task.labels]
    weights = [
        stages.class_weights(labels, count, recipe)
        for labels, count in zip(prepared.train.labels.values(), classes, strict=True)
    ]
    torch.manual_seed(recipe.seed)
    teacher = Lite0(prepared.spec.channels, classes, recipe.cut)
    load_pretrained(teacher)
    channels_last(teacher)
    run.fit(stages.teacher_stage(teacher, prepared.train, recipe, weights, generator), prepared.train, progress)
    teacher.eval()
    student = Student(teacher, recipe)
    with torch.no_grad():
        images = prepared.train.images[:256]
        features = teacher.features(normalise(images))
        student.start_from(features)
        if student.picture is not None:
            student.picture.start_from(features, images)
    channels_last(student)
    run.fit(stages.match_stage(student, teacher, prepared.train, recipe, weights, generator), prepared.train, progress)
    run.fit(stages.tune_stage(student, teacher, prepared.train, recipe, weights, generator), prepared.train, progress)
    stages.recalibrate(student, prepared.train, recipe)
    student.exit = fit_exit(run, student, prepared.train, weights[0], progress)
    built = build(
        student,
        teacher,
        prepared.train,
        prepared.test,
        name=prepared.dataset.name,
        spec=prepared.spec,
        tasks=prepared.tasks,
        data={**provenance(prepared), "train_labels": _label_counts(prepared)},
    )
    return built, run


def publish(built: Built, run: Run, prepared: Prepared, out: Path) -> Bundle:
    """Write the bundle with its model card, and the report beside it; returns the bundle as written.

    An existing bundle at ``out`` is replaced only once the new one is on the disk.
    """
    card = model_card(built, prepared).encode()
    bundle = built.bundle.with_file("MODEL_CARD.md", card)
    partial = out.with_name(f".{out.name}.part{'.zip' if out.suffix == '.zip' else ''}")
    _remove(partial)
    bundle.save(partial)
    _remove(out)
    partial.rename(out)
    write_report(built, run.history, prepared, out.parent / f"{out.stem}-report.html")
    return Bundle.load(out)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def task_of(dataset: Dataset, name: str) -> Task:
    """A task that the data set can be trained on; raises :class:`DataError` with those there are."""
    known = {task.name: task for task in (*dataset.tasks, RECONSTRUCT)}
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"{dataset.name} has no task {name!r}; it has {', '.join(known)}{hint}")
    return known[name]


def _tasks(dataset: Dataset, recipe: Recipe) -> tuple[Task, ...]:
    """The recipe's tasks, those with labels first."""
    tasks = [task_of(dataset, name) for name in recipe.tasks] or dataset.tasks[:1]
    if not any(task.labels for task in tasks):
        raise DataError(
            f"{RECONSTRUCT.name} alone makes no bundle: name a task with labels too, such as {dataset.tasks[0].name}"
        )
    return tuple(sorted(tasks, key=lambda task: not task.labels))


def _label_counts(prepared: Prepared) -> dict[str, list[int]]:
    """Training images of each class, by task: devices whose share of a class is another one make up for it."""
    counts = {task.name: len(task.labels) for task in prepared.tasks if task.labels}
    labels = prepared.train.labels
    return {task: torch.bincount(labels[task], minlength=count).tolist() for task, count in counts.items()}


def provenance(prepared: Prepared) -> dict[str, object]:
    """What a manifest says of the data."""
    dataset = prepared.dataset
    return {
        "name": dataset.name,
        "licence": dataset.licence,
        "train_images": len(prepared.train),
        "test_images": len(prepared.test),
        "skipped_files": len(dataset.skipped),
        "split": prepared.split,
        "split_by": list(prepared.split_by),
    }
