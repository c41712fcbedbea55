"""What a device learns from: labelled pictures in a folder, or its share of a named data set in a simulation.

    a folder        see compression/labelled.py; where it holds nothing out itself, a part is, chosen by names
    solar, digits   what the bundle was not measured on; shared out as the config says (partition.py)

Pictures never leave the device. They are decoded once and kept as long as the folder does not change.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from headwater.compression.datasets import NAMES, Dataset, open_dataset, split
from headwater.compression.errors import DataError
from headwater.compression.labelled import open_labelled
from headwater.compression.learning.partition import Shares
from headwater.compression.learning.samples import Samples

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headwater.compression.image import InputSpec
    from headwater.compression.manifest import Manifest, Task

HELD_OUT = 0.2
"""Share of a folder's pictures that is not learnt from, where it sets none aside itself."""
_log = logging.getLogger(__name__)
KEPT = 32
"""Data sets that are kept decoded: a device has one, a simulation in one process has many."""


@dataclass(frozen=True)
class LocalData:
    """A device's own images."""

    train: Samples
    test: Samples
    """Never learnt from; may be empty."""


def local_data(manifest: Manifest, config: Mapping[str, Any]) -> LocalData:
    """The images of a node's config, for a bundle; raises :class:`DataError` if there are none that fit it."""
    source = str(config.get("data", ""))
    if not source:
        raise DataError('no data to learn from: give the node config data="FOLDER", a folder with a sub-folder a class')
    tasks = [task for task in manifest.tasks if task.labels]
    root = None if source in NAMES else Path(source).expanduser()
    parts = opened(source, manifest) if root is None else _folder(root, tasks)
    if (shares := Shares.of(config)) is not None:
        device = int(config.get("partition-id", 0))
        parts = shares.part(parts[0], tasks[0].name, device), shares.part(parts[1], tasks[0].name, device)
    names = tuple(task.name for task in tasks if task in parts[0].tasks)
    return LocalData(*(_read(_Listing.of(part, manifest.input, names, root)) for part in parts))


def opened(source: str, manifest: Manifest) -> tuple[Dataset, Dataset]:
    """A named data set as the bundle split it, so that what it is measured on is not learnt from."""
    recipe, task = manifest.recipe, next(task for task in manifest.tasks if task.labels)
    by = manifest.data.get("split_by") if manifest.data.get("name") == source else None
    share, seed = float(recipe.get("test_share", 0.25)), int(recipe.get("seed", 0))
    train, test = _split(source, share, seed, None if by is None else tuple(by))
    if task not in train.tasks:
        raise DataError(f"{source} has no task {task.name} with the labels {', '.join(task.labels)}")
    return train, test


@lru_cache(maxsize=1)
def _split(source: str, share: float, seed: int, by: tuple[str, ...] | None) -> tuple[Dataset, Dataset]:
    """A named data set never changes; the devices of a simulation that share a process need not list it each time."""
    return split(open_dataset(source), share, seed, by=by)


def _folder(folder: Path, tasks: Sequence[Task]) -> tuple[Dataset, Dataset]:
    dataset = open_labelled(folder, tasks)
    if dataset.test is not None or len(dataset) * HELD_OUT >= 1:
        return split(dataset, HELD_OUT)
    return dataset, replace(dataset, items=())


@dataclass(frozen=True, eq=False)
class _Listing:
    """Items to decode, equal to others of the same files."""

    dataset: Dataset
    spec: InputSpec
    tasks: tuple[str, ...]
    key: tuple[Any, ...]

    @classmethod
    def of(cls, dataset: Dataset, spec: InputSpec, tasks: tuple[str, ...], root: Path | None) -> _Listing:
        """List them; files of a folder ``root`` with the time at which they were written."""
        times = [(root / item.name).stat().st_mtime_ns if root else 0 for item in dataset.items]
        files = tuple(
            (item.name, time, tuple(sorted(item.labels.items())))
            for item, time in zip(dataset.items, times, strict=True)
        )
        return cls(dataset, spec, tasks, (dataset.name, spec, tasks, files))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Listing) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@lru_cache(maxsize=2 * KEPT)
def _read(listing: _Listing) -> Samples:
    """Decode what can be read; a picture that was cut short must not keep a device from learning from the others."""
    images, labels = [], []
    for item in listing.dataset.items:
        try:
            images.append(torch.from_numpy(listing.spec.apply(item.load()).copy()))
        except DataError as error:
            _log.warning("left out of training: %s", error)
            continue
        labels.append([item.labels[task] for task in listing.tasks])
    pixels = torch.stack(images) if images else torch.empty(0, *listing.spec.shape, dtype=torch.uint8)
    columns = torch.tensor(labels, dtype=torch.int64).reshape(len(labels), len(listing.tasks))
    return Samples(pixels, {task: columns[:, index] for index, task in enumerate(listing.tasks)})
