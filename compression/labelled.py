"""A device's own pictures, labelled by a bundle's names: a folder that may lack classes, and that grows.

    DATA/intact/*.jpg  DATA/defective/*.png      a sub-folder for each label of the bundle's first task
    DATA/test/intact/*.jpg ...                   held out, where there is such a folder
    DATA/labels.csv                              or a table, a column a task: see compression/datasets.py

A data set to train on from nothing needs every class and says by itself what there is to tell apart; on a device the
bundle says it, and a camera that never saw a broken cell still has something to teach.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.compression.datasets import LABELS, Dataset, Item, read_image, read_table
from headwater.compression.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.compression.manifest import Task

_TEST = "test"


def open_labelled(folder: Path, tasks: Sequence[Task]) -> Dataset:
    """The pictures of a folder, with labels of some of these tasks.

    Raises :class:`DataError` if there is no picture, or a label that the tasks do not have.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise DataError(
            f"{folder} is no folder; put labelled pictures there, in {folder}/{tasks[0].labels[0]}/ and so on"
        )
    if (folder / LABELS).is_file():
        return _listed(folder, tasks)
    items = _items(folder, folder, tasks[0])
    test = _items(folder, folder / _TEST, tasks[0]) if (folder / _TEST).is_dir() else None
    if not items:
        wanted = ", ".join(f"{folder / label}/" for label in tasks[0].labels)
        raise DataError(f"{folder} has no pictures; put those of each class into {wanted}")
    return Dataset(folder.resolve().name, (tasks[0],), items, "not stated (own images)", test)


def _items(root: Path, base: Path, task: Task) -> tuple[Item, ...]:
    folders = {entry.name for entry in base.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    if unknown := sorted(folders - {*task.labels, _TEST if base == root else ""}):
        raise DataError(f"{base} has {', '.join(unknown)}; the bundle's {task.name} is one of {', '.join(task.labels)}")
    return tuple(
        Item(path.relative_to(root).as_posix(), {task.name: index}, partial(read_image, path))
        for index, label in enumerate(task.labels)
        for path in sorted((base / label).rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    )


def _listed(folder: Path, tasks: Sequence[Task]) -> Dataset:
    table = folder / LABELS
    columns, rows = read_table(table)
    known = [task for task in tasks if task.name in columns]
    if not known:
        have, want = (", ".join(names) for names in (columns, [task.name for task in tasks]))
        raise DataError(f"{table} has columns {have}; the bundle's tasks are {want}")
    for task in known:
        if unknown := sorted({row[task.name] for row in rows.values()} - set(task.labels)):
            raise DataError(
                f"{table} says {', '.join(unknown)}; the bundle's {task.name} is one of {', '.join(task.labels)}"
            )
    items = tuple(
        Item(file, {task.name: task.labels.index(row[task.name]) for task in known}, partial(read_image, folder / file))
        for file, row in sorted(rows.items())
    )
    return Dataset(folder.resolve().name, tuple(known), items, "not stated (own images)")
