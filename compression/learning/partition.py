"""A data set shared out to devices that are not alike: for simulations, benchmarks and tests. Without torch.

Every device sees one *domain* (mono- or polycrystalline cells, say) and the classes in proportions of its own, drawn
from a Dirichlet distribution (Hsu, Qi and Brown, 2019, arXiv:1909.06335): a small ``alpha`` gives each device nearly
one class, a large one gives all the same mixture. What a device gets depends on the numbers and the seed alone.

A data set can be *shared out*, each item to one device, or every device *draws* so many items of its own, which others
may have too: what a fleet of ten thousand does with two thousand pictures. A device's draw depends on its number and
nothing else, so that it costs the same in a fleet of any size.

In a node's config, where Flower's simulation engine sets the first two itself:

    partition-id         which share, from 0
    num-partitions       of how many
    partition-domain     the task whose label is the domain, such as cell_type; "" for none
    partition-alpha      0.5 if it is not given
    partition-seed       0 if it is not given
    partition-images     items that each device draws; 0, or not given: the data set is shared out

Legend: N items, D devices, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from headwater.compression.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from headwater.compression.datasets import Dataset

LEAST = 2
"""Items that every device gets, as long as there are enough."""


@dataclass(frozen=True)
class Shares:
    """How a data set is shared out; checked when made."""

    devices: int
    domain: str = ""
    """The task whose label is the domain; empty: all devices are of one."""
    alpha: float = 0.5
    seed: int = 0
    images: int = 0
    """Items that each device draws; 0: each item is one device's alone."""

    def __post_init__(self) -> None:
        """Raise :class:`DataError` for shares that are none."""
        if self.devices < 1 or not self.alpha > 0 or self.images < 0:
            raise DataError(f"images cannot be shared out to {self.devices} devices with alpha {self.alpha}")

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self | None:
        """Those of a node's config; None where the data are not shared out."""
        if "num-partitions" not in config:
            return None
        return cls(
            int(config["num-partitions"]),
            str(config.get("partition-domain", "")),
            float(config.get("partition-alpha", 0.5)),
            int(config.get("partition-seed", 0)),
            int(config.get("partition-images", 0)),
        )

    def part(self, dataset: Dataset, task: str, device: int) -> Dataset:
        """The items of a device; those set aside for testing are shared out alike.

        Raises :class:`DataError` for a device beyond the number, and a task that the data set lacks.
        """
        if not 0 <= device < self.devices:
            raise DataError(f"there is no share {device} of {self.devices}; they count from 0")
        have = [each.name for each in dataset.tasks]
        if lost := {task, self.domain or task} - set(have):
            raise DataError(f"{dataset.name} has no task {', '.join(sorted(lost))}; it has {', '.join(have)}")
        labels = dataset.labels(task)
        domains = dataset.labels(self.domain) if self.domain else np.zeros_like(labels)
        return replace(dataset, items=tuple(dataset.items[index] for index in self.own(labels, domains, device)))

    def own(self, labels: NDArray[np.int64], domains: NDArray[np.int64], device: int) -> NDArray[np.int64]:
        """Indices of a device's items, ascending, of a data set with these classes and domains, [N] each."""
        if not len(labels):
            return np.zeros(0, np.int64)
        if self.images:
            return self._drawn(labels, domains, device)
        return np.flatnonzero(_assigned(self, labels.tobytes(), domains.tobytes()) == device)

    def counts(self, labels: NDArray[np.int64], domains: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many items each device has, [D]."""
        if self.images:
            return np.full(self.devices, self.images)
        return np.bincount(self.assign(labels, domains), minlength=self.devices)

    def _drawn(self, labels: NDArray[np.int64], domains: NDArray[np.int64], device: int) -> NDArray[np.int64]:
        """Of the device's domain, each class as often as its own mixture says; no item twice before all were taken."""
        rng = np.random.default_rng([self.seed, device])
        seats = _seats(domains, self.devices)
        domain = list(seats)[int(np.searchsorted(np.cumsum(list(seats.values())), device, side="right"))]
        mine = np.flatnonzero(domains == domain)
        classes, sizes = np.unique(labels[mine], return_counts=True)
        portions = rng.dirichlet([self.alpha] * len(classes)) * sizes
        wanted = rng.multinomial(self.images, portions / portions.sum())
        return np.sort(
            np.concatenate(
                [
                    _some(mine[labels[mine] == label], int(count), rng)
                    for label, count in zip(classes, wanted, strict=True)
                ]
            )
        )

    def assign(self, labels: NDArray[np.int64], domains: NDArray[np.int64]) -> NDArray[np.int64]:
        """The device of every item, [N], from its class and its domain, [N] each."""
        rng = np.random.default_rng(self.seed)
        seat, first = np.zeros(len(labels), np.int64), 0
        for domain, count in _seats(domains, self.devices).items():
            classes = np.unique(labels)
            portions = rng.dirichlet([self.alpha] * count, len(classes))  # drawn before items, which may be others
            for label, portion in zip(classes, portions, strict=True):
                own = np.flatnonzero((labels == label) & (domains == domain))
                bounds = np.round(np.cumsum(portion) * len(own)).astype(np.int64)[:-1]
                for device, items in enumerate(np.split(own, bounds)):
                    seat[items] = first + device
            _fill(seat, domains == domain, first, count)
            first += count
        return seat


@lru_cache(maxsize=4)
def _assigned(shares: Shares, labels: bytes, domains: bytes) -> NDArray[np.int64]:
    """The same for all devices of a simulation that share a process."""
    return shares.assign(np.frombuffer(labels, np.int64), np.frombuffer(domains, np.int64))


def _some(items: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """So many of them at random; all of them as often as they go into it, if they are fewer."""
    rounds, rest = divmod(count, len(items))
    return np.concatenate([np.tile(items, rounds), rng.choice(items, rest, replace=False)])


def _seats(domains: NDArray[np.int64], devices: int) -> dict[int, int]:
    """Devices of each domain, by its share of the items; each domain has one at least if there are enough."""
    names, counts = np.unique(domains, return_counts=True)
    if devices < len(names):
        raise DataError(f"{len(names)} domains cannot be shared out to {devices} devices")
    exact = counts / counts.sum() * (devices - len(names))
    seats = 1 + np.floor(exact).astype(np.int64)
    for index in np.argsort(np.floor(exact) - exact, kind="stable")[: devices - int(seats.sum())]:
        seats[index] += 1
    return {int(name): int(seat) for name, seat in zip(names, seats, strict=True)}


def _fill(seat: NDArray[np.int64], of_domain: NDArray[np.bool_], first: int, count: int) -> None:
    """Let no device of a domain have fewer than :data:`LEAST` items: it gets some of who has the most."""
    while True:
        sizes = np.bincount(seat[of_domain] - first, minlength=count)
        poor, rich = int(sizes.argmin()), int(sizes.argmax())
        if sizes[poor] >= LEAST or sizes[rich] <= LEAST:
            return
        seat[np.flatnonzero(of_domain & (seat == first + rich))[-1]] = first + poor
