"""The ground that all contests stand on: devices with pictures of their own, and the bundle that they begin with.

    data set ──> test          what every version is measured on; nobody learns from it
             ├─> the server's  a share of the rest, from which the first bundle is trained
             └─> the devices'  what is left, shared out by domain and label, a folder a device

So the fleet starts where fleets start: with a model made of the few pictures that somebody had labelled before the
first camera hung. Which pictures go where is decided by the seed: a seed is a split.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from headwater.compression.bundle import Bundle
from headwater.compression.datasets import Dataset, open_dataset, split
from headwater.compression.learning.partition import Shares
from headwater.compression.learning.samples import Samples
from headwater.server.training import pipeline
from headwater.server.training.recipe import DIGITS, SOLAR, Recipe

if TYPE_CHECKING:
    from pathlib import Path

    from rich.progress import Progress


@dataclass(frozen=True)
class Terrain:
    """Which data, how many devices, how long."""

    source: str
    recipe: Recipe
    """Of the first bundle."""
    domain: str
    """Task by whose label the devices differ; empty for none."""
    devices: int
    rounds: int
    rate: float = 0.0001
    """Step size on the devices."""
    servers_share: float = 0.2
    """Of the pictures to learn from, those that the first bundle is trained on."""
    alpha: float = 0.5
    """Of the Dirichlet distribution by which the labels are skewed."""


SOLAR_FLEET = Terrain("solar", SOLAR, "cell_type", devices=16, rounds=15)
_LONGER = replace(DIGITS, teacher_epochs=12, match_epochs=4, tune_epochs=8)
"""A fifth of the digits needs more epochs than all of them."""
DIGITS_FLEET = Terrain("digits", _LONGER, "", devices=3, rounds=2)


@dataclass(frozen=True)
class Ground:
    """One seed's split."""

    terrain: Terrain
    seed: int
    folder: Path

    @property
    def bundle_path(self) -> Path:
        """The first bundle."""
        return self.folder / "start.zip"

    @property
    def bundle(self) -> Bundle:
        """The same, loaded."""
        return Bundle.load(self.bundle_path)

    @property
    def names(self) -> list[str]:
        """Of the devices."""
        return [f"device-{number:02d}" for number in range(self.terrain.devices)]

    def data(self, name: str) -> Path:
        """A device's folder of pictures, a sub-folder a label."""
        return self.folder / "devices" / name

    def test(self) -> Samples:
        """What versions are measured on."""
        _, test = self._split()
        task = open_dataset(self.terrain.source).tasks[0].name
        return Samples.read(test, self.bundle.manifest.input, (task,))

    def prepare(self, progress: Progress) -> None:
        """Share out the pictures and train the first bundle; it goes on where it was stopped."""
        learnt, test = self._split()
        left, own = split(learnt, self.terrain.servers_share, self.seed + 11)
        self._share_out(left)
        recipe = replace(self.terrain.recipe, seed=self.seed)
        whole = replace(own, test=test.items)
        tasks = own.tasks[:1]
        prepared = pipeline.prepare_tasks(self.terrain.source, whole, recipe, tasks)
        built, run = pipeline.train(prepared, recipe, self.folder / "start.work", progress)
        pipeline.publish(built, run, prepared, self.bundle_path)

    def _split(self) -> tuple[Dataset, Dataset]:
        return split(open_dataset(self.terrain.source), self.terrain.recipe.test_share, self.seed)

    def _share_out(self, dataset: Dataset) -> None:
        task = dataset.tasks[0]
        shares = Shares(self.terrain.devices, self.terrain.domain, self.terrain.alpha, self.seed)
        for number, name in enumerate(self.names):
            for index, item in enumerate(shares.part(dataset, task.name, number).items):
                folder = self.data(name) / task.labels[item.labels[task.name]]
                folder.mkdir(parents=True, exist_ok=True)
                item.load().save(folder / f"{index:04d}.png")
