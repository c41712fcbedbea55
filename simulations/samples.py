"""The pictures of a demo: test pictures of a data set in a seeded order, as files that every device reads alike.

Data sets stand in the order of their making, solar's with more than two thirds of the defects in its first half. A
device on a slow link gets through the first hundred only, so the order is drawn by lot, the same for all.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.compression.datasets import NAMES, Dataset, open_dataset, read_image, split
from headwater.compression.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

    from headwater.compression.datasets import Item
    from headwater.compression.manifest import Task


@dataclass(frozen=True)
class Sample:
    """One test picture."""

    index: int
    """Its place in the order."""
    name: str
    """In its data set."""
    label: str
    """The right class of the bundle's first task."""
    path: Path

    def load(self) -> Image.Image:
        """Decode it; raises :class:`DataError`."""
        return read_image(self.path)


def take_samples(source: str, task: Task, count: int, folder: Path, seed: int = 0) -> list[Sample]:
    """Write up to `count` test pictures of a data set to a folder, as PNG, in the order of their names.

    Args:
        source: ``solar``, ``digits`` or a folder with a sub-folder a class.
        task: whose labels the pictures need; a folder's class names are taken for labels of it.
        count: at most so many.
        folder: made if it is not there; what it holds is replaced.
        seed: of the order, not of the split: that is the one of training.

    Raises:
        DataError: the data set cannot be opened or has no labels of this task.
    """
    _, test = split(open_dataset(source))
    answers = labels_of(test, task)
    order = sorted(test.items, key=lambda item: hashlib.sha256(f"{seed}/{item.name}".encode()).digest())[:count]
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    samples = [
        Sample(at, item.name, answers[item.name], folder / f"{at:05d}-{Path(item.name).stem}.png")
        for at, item in enumerate(order)
    ]
    with ThreadPoolExecutor() as pool:
        list(pool.map(_write, order, samples))
    return samples


def labels_of(dataset: Dataset, task: Task) -> dict[str, str]:
    """The right class of every item, by the item's name; raises :class:`DataError` if there are no such labels."""
    own = {known.name: known for known in dataset.tasks}
    found = own.get(task.name) or own.get("class")
    if found is None or not set(found.labels) <= set(task.labels):
        have = "; ".join(f"{known.name}: {', '.join(known.labels)}" for known in dataset.tasks)
        raise DataError(
            f"{dataset.name} has {have}, but the bundle answers {task.name}: {', '.join(task.labels)}; give the "
            f"data set that the bundle was trained for ({', '.join(NAMES)} or a folder)"
        )
    return {item.name: found.labels[item.labels[found.name]] for item in dataset.items}


def _write(item: Item, sample: Sample) -> None:
    item.load().save(sample.path, compress_level=1)
