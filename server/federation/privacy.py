"""Differential privacy of the aggregate, by Flower's wrapper for fixed clipping at the server.

Each device's update is shortened to `clip` and Gaussian noise of `noise * clip / n` is added to the mean over the n
devices (McMahan et al., 2018, arXiv:1710.06963). Every device weighs the same and is averaged over all n, also where it
trained nothing: with fewer in the denominator one device could move a coordinate by more than the noise covers. So
privacy costs heterogeneous averaging and weights by examples, besides the noise itself.

What is protected is whether one device took part at all, against whoever sees the models that come out; the server
itself sees every update, and the losses and numbers of examples that devices report are not covered.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg

from headwater.compression.errors import SettingsError
from headwater.server.federation.averaging import Contribution, in_order
from headwater.server.federation.plain import arrays_of, reply

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Privacy:
    """How much noise, and at which length an update is cut."""

    noise: float
    """Standard deviation of the noise, in units of what one device can add to the sum."""
    clip: float
    """Longest update, as its Euclidean norm over all arrays."""

    def __post_init__(self) -> None:
        """Raise :class:`SettingsError` unless both are positive."""
        if self.noise <= 0 or self.clip <= 0:
            raise SettingsError(f"privacy needs noise and clip above 0; got {self.noise} and {self.clip}")

    def epsilon(self, rounds: int, delta: float) -> float:
        """What `rounds` aggregates cost: they are (epsilon, delta)-private for any device that takes part in all.

        The exact figure for composed Gaussian mechanisms (Balle and Wang, 2018, arXiv:1805.06530), found by bisection;
        no credit is taken for sampling devices.
        """
        if not 0 < delta < 1:
            raise SettingsError(f"delta is {delta}; it has to lie between 0 and 1, well below 1 / devices")
        return _bisect(lambda epsilon: _delta(epsilon, math.sqrt(rounds) / self.noise) > delta) if rounds else 0.0


def private(privacy: Privacy, secret: bytes, number: int) -> PrivateMean:
    """The aggregator of round `number`; `secret` seeds its noise, so that a round done again is the same round."""
    return PrivateMean(privacy, hashlib.sha256(secret + number.to_bytes(8, "little")).digest())


@dataclass(frozen=True)
class PrivateMean:
    """An aggregator: clipped, averaged over all devices alike, noised; by Flower's own wrapper."""

    privacy: Privacy
    seed: bytes

    def __call__(
        self, contributions: Sequence[Contribution], shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, NDArray[np.float32]]:
        """Aggregate; every coordinate moves, if only by noise."""
        ordered = in_order(contributions)
        replies = [reply(each.node, _whole(each, shapes), 1.0) for each in ordered]
        wrapper = self._wrapper(len(ordered), sum(math.prod(shape) for shape in shapes.values()))
        with _seeded(self.seed):
            arrays, _ = wrapper.aggregate_train(0, replies)
        return _split(arrays_of(arrays)[0].astype(np.float32), shapes)

    def _wrapper(self, devices: int, size: int) -> DifferentialPrivacyServerSideFixedClipping:
        """Flower's wrapper around its plain mean, told that the model is 0: updates are what it gets as models."""
        mean = FedAvg(fraction_train=0.0, fraction_evaluate=0.0)  # it only aggregates: nobody is sampled here
        wrapper = DifferentialPrivacyServerSideFixedClipping(mean, self.privacy.noise, self.privacy.clip, devices)
        zero = ArrayRecord({"values": Array(np.zeros(size, np.float32))})
        wrapper.configure_train(0, zero, ConfigRecord(), cast("Grid", None))
        return wrapper


def _whole(each: Contribution, shapes: Mapping[str, tuple[int, ...]]) -> NDArray[np.float32]:
    """A device's change of everything, flat; 0 where it trained nothing."""
    full = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    for name, change in each.delta.items():
        full[name][each.places[name]] = change * np.float32(each.scale)
    flat: NDArray[np.float32] = np.concatenate([array.reshape(-1) for array in full.values()])
    if not flat.any():
        flat[0] = 1e-15  # Flower divides by the length
    return flat


def _split(flat: NDArray[np.float32], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[np.float32]]:
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])[:-1]
    return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), np.split(flat, ends), strict=True)}


@contextmanager
def _seeded(seed: bytes) -> Iterator[None]:
    """Numpy's global generator, which Flower draws from, begins at `seed`; afterwards it is where it was."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(np.frombuffer(seed, np.uint32))  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def _delta(epsilon: float, mu: float) -> float:
    """The delta of a Gaussian mechanism whose two outcomes lie `mu` standard deviations apart."""
    upper, lower = _normal(mu / 2 - epsilon / mu), _normal(-mu / 2 - epsilon / mu)
    return upper - math.exp(min(epsilon, 700)) * lower if lower > 0 else upper


def _normal(x: float) -> float:
    return math.erfc(-x / math.sqrt(2)) / 2


def _bisect(above: Callable[[float], bool]) -> float:
    """The least epsilon that is enough."""
    low, high = 0.0, 1.0
    while above(high):
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if above(middle) else (low, middle)
    return high
