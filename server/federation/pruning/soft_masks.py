"""Channels on their way out, which may come back: a companion of the rounds before channels are removed for good.

Each channel of each unit has a factor, 1 at first. After every round the server asks the knapsack which channels it
would keep now, by what devices say of their importance; the factors of the others fall a step, those of the chosen rise
two. A factor multiplies the weights that read the channel, in the arrays that all devices get, so that nothing in
training, updates or wire has to know of it: the network learns to do without what fades, and what it needs after all
comes back (He et al., "Soft Filter Pruning", IJCAI 2018, with factors in place of zeros). Scores are taken as they
would be at a factor of 1, or what fades could only fade further.

Legend: C channels of a unit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.compression.errors import LearningError, SettingsError
from headwater.compression.learning.importance import METHODS, together
from headwater.compression.learning.surgery import choose, units_of, worth
from headwater.server.federation.companion import Ending
from headwater.server.federation.pruning.knapsack import Choice, fill
from headwater.server.federation.pruning.latency import Curve, Times
from headwater.server.federation.pruning.sparse import GATHERED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flwr.app import ConfigRecord
    from numpy.typing import NDArray

    from headwater.compression.learning.network import SplitNetwork
    from headwater.compression.learning.surgery import Unit
    from headwater.server.federation.averaging import Arrays, Contribution

    Kept = dict[str, NDArray[np.intp]]

_TAG = b"fading\0"
FLOOR = 0.1
"""The least factor: below it a channel's importance could no longer be told."""
MEMORY = 0.5
"""Share of a score that is what was known before."""


@dataclass(frozen=True)
class StructuredSettings:
    """How much quicker, and how channels are judged."""

    target_latency: float = 0.5
    """Time of the widest head, as a share of what it is now."""
    target_tail: float = 0.7
    """Time of each tail, as a share of what it is now."""
    method: str = "gradients"
    """How importance is told: one of :data:`headwater.compression.learning.importance.METHODS`."""
    rounds: int = 6
    """In which factors fall before channels are removed."""

    def __post_init__(self) -> None:
        """Raise :class:`SettingsError` for a target that is none, or a method that there is not."""
        targets = {"target_latency": self.target_latency, "target_tail": self.target_tail}
        if wrong := [f"{name} = {value}" for name, value in targets.items() if not 0 < value <= 1]:
            raise SettingsError(f"{', '.join(wrong)}: give a share of the time of now, above 0 and at most 1")
        if self.method not in METHODS:
            raise SettingsError(f"there is no importance method {self.method!r}; there are {', '.join(METHODS)}")
        if self.rounds < 1:
            raise SettingsError(f"channels cannot fade in {self.rounds} rounds; give at least 1")


class Allotment:
    """Which channels stay, given importance and measured times: a knapsack for the head, one for each tail."""

    def __init__(
        self, network: SplitNetwork, times: Times, curves: Mapping[str, Curve], settings: StructuredSettings
    ) -> None:
        """Take a network, what it takes as a whole, and what each unit takes at what size."""
        self._units, self._curves, self._settings = units_of(network), dict(curves), settings
        self._set(times)

    def _set(self, times: Times) -> None:
        settings, widest = self._settings, max(times.heads)
        self._times = times
        self._limits = {"head": settings.target_latency * times.heads[widest]}
        self._whole = {"head": times.heads[widest]}
        for number, tail_ms in enumerate(times.tails):
            self._limits[f"tails.{number}"] = settings.target_tail * tail_ms
            self._whole[f"tails.{number}"] = tail_ms

    @property
    def parts(self) -> tuple[str, ...]:
        """``head`` and ``tails.N``."""
        return tuple(self._limits)

    def dump(self) -> dict[str, Any]:
        """What was measured."""
        times = {"heads": list(self._times.heads.items()), "tails": self._times.tails}
        return {"times": times, "curves": {name: (c.channels, c.ms) for name, c in self._curves.items()}}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on with what was measured before, so that a run that was stopped ends as it would have."""
        self._curves = {name: Curve(tuple(channels), tuple(ms)) for name, (channels, ms) in state["curves"].items()}
        self._set(Times(dict(map(tuple, state["times"]["heads"])), tuple(state["times"]["tails"])))

    def scaled(self, factors: Mapping[str, float]) -> Allotment:
        """The same with the time of each part, ``head`` or ``tails.N``, multiplied by a factor."""
        made = object.__new__(Allotment)
        made.__dict__ = {**self.__dict__, "_limits": {k: v * factors.get(k, 1.0) for k, v in self._limits.items()}}
        return made

    def kept(self, scores: Mapping[str, NDArray[np.float32]]) -> Kept:
        """The channels that stay of every unit; raises :class:`LearningError` where no choice is quick enough."""
        found: Kept = {}
        for part, limit_ms in self._limits.items():
            offers = {n: self._offer(u, scores[n]) for n, u in self._units.items() if n.startswith(f"{part}.")}
            # What is in no unit (or in the call itself) takes its time whatever is chosen.
            rest_ms = self._whole[part] - sum(self._curves[name].at(self._units[name].channels) for name in offers)
            for name, choice in fill(offers, limit_ms - rest_ms).items():
                found[name] = choose(scores[name], choice.channels, self._units[name].widths)
        return found

    def _offer(self, unit: Unit, scores: NDArray[np.float32]) -> list[Choice]:
        counts = unit.counts()
        values = worth(scores, counts, unit.widths)
        return [Choice(n, self._curves[unit.name].at(n), w) for n, w in zip(counts, values, strict=True)]


class SoftMasks:
    """The companion of the rounds in which channels fade."""

    def __init__(self, network: SplitNetwork, allotment: Allotment, settings: StructuredSettings) -> None:
        """Begin with all channels there."""
        units = units_of(network)
        self.allotment, self.settings = allotment, settings
        self._reading = {name: unit.reading_name for name, unit in units.items()}
        self.factors = {name: np.ones(unit.channels, np.float32) for name, unit in units.items()}
        self.scores: dict[str, NDArray[np.float32]] = {}

    def begin(self, arrays: Arrays) -> None:
        """They are those that were measured, or learnt since: the layers are the same."""

    def ask(self, number: int, round_: ConfigRecord) -> None:
        """Ask for importance."""
        del number
        round_["gather"] = self.settings.method

    def masks(self) -> Mapping[str, NDArray[Any]] | None:
        """None: weights are all there."""
        return None

    def coded(self, number: int, held: Arrays) -> Mapping[str, NDArray[Any]] | None:
        """None: all of them."""
        del number, held
        return None

    def end(self, number: int, contributions: Sequence[Contribution], arrays: Arrays) -> Ending:
        """Learn what devices say, and let channels fade or come back."""
        del number
        reports = [report for each in contributions if (report := self._report(each))]
        if not reports:
            return Ending(arrays)
        self._learn(together(reports))
        kept = self.kept()
        step = (1 - FLOOR) / self.settings.rounds
        changes: dict[str, NDArray[np.float32]] = {}
        for name, factors in self.factors.items():
            stays = np.zeros(len(factors), np.bool_)
            stays[kept[name]] = True
            after = np.where(stays, np.minimum(1, factors + 2 * step), np.maximum(FLOOR, factors - step))
            changes[name], self.factors[name] = after / factors, after.astype(np.float32)
        return Ending(self._shaded(arrays, changes))

    def kept(self) -> Kept:
        """The channels that would stay now; raises :class:`LearningError` before any device has said anything."""
        if not self.scores:
            raise LearningError("no device has said yet which channels matter; run more rounds")
        return self.allotment.kept(self.scores)

    def cleared(self, arrays: Arrays) -> Arrays:
        """The arrays with every factor back at 1, for the network that channels are removed from."""
        return self._shaded(arrays, {n: np.float32(1) / f for n, f in self.factors.items()})

    def _shaded(self, arrays: Arrays, changes: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        shaded: dict[str, NDArray[np.float32]] = dict(arrays)
        for name, change in changes.items():
            reading = shaded[self._reading[name]]
            shape = (1, len(change), *[1] * (reading.ndim - 2))
            shaded[self._reading[name]] = (reading * change.reshape(shape)).astype(np.float32)
        return shaded

    def _report(self, contribution: Contribution) -> Mapping[str, Any] | None:
        """What a device gathered, if it has the right shape and is finite."""
        report: Mapping[str, Any] = contribution.gathered.get(GATHERED, {})
        parts = ((name, f"{name}:{part}") for name in self.factors for part in ("score", "seen"))
        fits = all(_fits(report.get(key), len(self.factors[name])) for name, key in parts)
        return report if fits else None

    def _learn(self, scores: Mapping[str, NDArray[np.float32]]) -> None:
        power = METHODS[self.settings.method].power
        for name, score in scores.items():
            clear = score / self.factors[name] ** power
            known = self.scores.get(name, clear)
            self.scores[name] = (MEMORY * known + (1 - MEMORY) * clear).astype(np.float32)

    def dump(self) -> bytes:
        """Factors, scores and what was measured."""
        state = {"factors": self.factors, "scores": self.scores}
        plain = {k: {n: a.tolist() for n, a in v.items()} for k, v in state.items()}
        return _TAG + json.dumps({**plain, "measured": self.allotment.dump()}).encode()

    def load(self, state: bytes) -> None:
        """Go on from a state; one that is not of fading channels is none."""
        if not state.startswith(_TAG):
            return
        found = json.loads(state[len(_TAG) :])
        self.factors = {name: np.array(values, np.float32) for name, values in found["factors"].items()}
        self.scores = {name: np.array(values, np.float32) for name, values in found["scores"].items()}
        self.allotment.load(found["measured"])


def _fits(array: Any, size: int) -> bool:  # noqa: ANN401 - from a device
    return (
        isinstance(array, np.ndarray)
        and array.dtype == np.float32
        and array.shape == (size,)
        and bool(np.isfinite(array).all())
        and bool((array >= 0).all())
    )
