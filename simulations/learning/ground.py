"""The images of a simulated fleet: who has how many, and what the server measures on.

A named data set is split as the bundle split it. Of a folder the server has `test/`; where it has none, a part is held
out, the same that the devices hold out, and linked to from a folder of the simulation's, so that the server may open it
as any other.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.compression.datasets import LABELS, NAMES, Dataset, split
from headwater.compression.errors import DataError
from headwater.compression.labelled import open_labelled
from headwater.compression.learning.local_data import HELD_OUT, opened
from headwater.compression.learning.partition import LEAST, Shares
from headwater.simulations.learning.fleet import Images

if TYPE_CHECKING:
    from headwater.compression.manifest import Manifest, Task
    from headwater.simulations.learning.settings import LearningSettings, Partition

HELD = "held-out"
"""The folder of links."""


@dataclass(frozen=True)
class Ground:
    """What a simulation stands on."""

    images: Images
    measured: str | None
    """What the server measures on; None where each device has a folder and nobody has another."""


def ground(data: str, manifest: Manifest, told: LearningSettings, out: Path) -> Ground:
    """Share out a data set; raises :class:`DataError` for one that there is not enough of."""
    tasks = [task for task in manifest.tasks if task.labels]
    partition = told.partition_of()
    if partition.kind == "folder":
        return _folders(Path(data).expanduser(), tasks)
    learnt, measured = _shared(data, manifest, tasks, out)
    domain = _domain(partition, learnt, tasks[0])
    shares = Shares(told.devices, domain, partition.alpha, told.seed, told.images)
    labels = learnt.labels(tasks[0].name)
    counts = shares.counts(labels, learnt.labels(domain) if domain else np.zeros_like(labels))
    if counts.min() < 1:
        raise DataError(
            f"{len(learnt)} images to learn from cannot be shared out to {told.devices} devices, {LEAST} each: give "
            "fewer devices, or --images, which lets devices have the same ones"
        )
    config: dict[str, Any] = {
        "data": data if data in NAMES else str(Path(data).expanduser().resolve()),
        "num-partitions": told.devices,
        "partition-domain": domain,
        "partition-alpha": partition.alpha,
        "partition-seed": told.seed,
        "partition-images": told.images,
    }
    return Ground(Images(config, counts), measured)


def _shared(data: str, manifest: Manifest, tasks: list[Task], out: Path) -> tuple[Dataset, str]:
    """What devices share, and what the server has."""
    if data in NAMES:
        return opened(data, manifest)[0], data
    root = Path(data).expanduser().resolve()
    dataset = open_labelled(root, tasks)
    learnt, test = split(dataset, HELD_OUT)
    if dataset.test is not None:
        return learnt, str(root / "test")
    return learnt, str(_linked(test, root, out / HELD))


def _domain(partition: Partition, dataset: Dataset, first: Task) -> str:
    """The task by whose label devices differ; empty for none."""
    others = [task.name for task in dataset.tasks if task.name != first.name]
    if partition.kind != "domain":
        return ""
    if partition.task in others or (not partition.task and len(others) == 1):
        return partition.task or others[0]
    raise DataError(
        f"the data set {dataset.name} has {', '.join(others) or 'no task'} besides {first.name} to tell domains by; "
        "give --partition domain:TASK with one of them, or dirichlet"
    )


def _folders(root: Path, tasks: list[Task]) -> Ground:
    """A folder a device; `test` is the server's."""
    if not root.is_dir():
        raise DataError(f"{root} is no folder; with --partition folder it holds one for each device")
    own = sorted(path for path in root.iterdir() if path.is_dir() and path.name != "test" and path.name[0] != ".")
    if not own:
        raise DataError(f"{root} holds no folder of a device, each with a sub-folder a class")
    counts = np.array([_learnt_of(open_labelled(path, tasks)) for path in own], np.int64)
    test = root / "test"
    return Ground(Images({}, counts, [str(path.resolve()) for path in own]), str(test) if test.is_dir() else None)


def _learnt_of(dataset: Dataset) -> int:
    """Images of a device's folder that it learns from."""
    if dataset.test is not None or len(dataset) * HELD_OUT < 1:
        return len(dataset)
    return len(split(dataset, HELD_OUT)[0])


def _linked(dataset: Dataset, root: Path, folder: Path) -> Path:
    """A folder with links to the images of a data set, and their labels in a table."""
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted(dataset.items[0].labels)
    with (folder / LABELS).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", *names])
        for number, item in enumerate(dataset.items):
            link = folder / f"{number:06d}{Path(item.name).suffix}"
            link.unlink(missing_ok=True)
            link.symlink_to(root / item.name)
            labels = {task.name: task.labels[item.labels[task.name]] for task in dataset.tasks}
            writer.writerow([link.name, *(labels[name] for name in names)])
    return folder
