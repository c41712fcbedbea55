"""The parts of ``_core.c``, made as those of Python are; importing this fails where the core was not built."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from headwater.device.control.controller import Observation, Situation
from headwater.server.batch_queue import BatchQueue, QueueFullError, State
from headwater.simulations.fleet import _core, links, tally
from headwater.simulations.fleet._core import Device, Line
from headwater.simulations.fleet.chance import NORMAL, key_of
from headwater.simulations.fleet.outcome import Histogram, Hour, ServerHour, ServerOutcome
from headwater.simulations.fleet.servers import is_up

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headwater.simulations.fleet.arrivals import Clock
    from headwater.simulations.fleet.links import Gap
    from headwater.simulations.fleet.model import Model
    from headwater.simulations.fleet.outcome import ClassOutcome
    from headwater.simulations.fleet.routes import Routes
    from headwater.simulations.fleet.scenario import DeviceClass, Server

__all__ = ["Crew", "Device", "Line", "RateLink", "Station", "Tally", "agenda"]

_core.prepare(NORMAL)


def agenda(slice_s: float) -> _core.Agenda:
    """See :class:`headwater.simulations.fleet.agenda.Agenda`; it needs no slices."""
    del slice_s
    return _core.Agenda()


class RateLink(_core.Road, links.RateLink):
    """See :class:`headwater.simulations.fleet.links.RateLink`."""

    def __init__(self, *given: Any) -> None:  # noqa: ANN401 - what links.RateLink takes
        """``given``: see :class:`headwater.simulations.fleet.links.RateLink`."""
        links.RateLink.__init__(self, *given)
        awake_s, beat_s = (math.nan if each is None else each for each in (self._awake_s, self._beat_s))
        radio = awake_s, self._wake_s, beat_s, self._beat_bytes
        overheads = self._up_delay_s, self._down_delay_s, self._frame_bytes, self._answer_bytes
        self.lay(self._used, self._up.segments(), self._down.segments(), radio, overheads, self._up.has_gaps)


class Station(_core.Station):
    """See :class:`headwater.simulations.fleet.servers.Station`."""

    __slots__ = ()

    def __init__(self, name: str, server: Server, agenda: _core.Agenda, seed: int, outages: list[Gap]) -> None:
        """See :class:`headwater.simulations.fleet.servers.Station`."""
        times = server.handling_ms / 1e3, server.batch_ms / 1e3, server.frame_ms / 1e3, server.spread
        queue: BatchQueue[Any, None] = BatchQueue(server.limits)
        rules = queue, QueueFullError, State.NEW, None
        key = key_of("server", name, seed)
        super().__init__(name, outages, ServerOutcome(name, server.workers), agenda, times, key, rules)

    def is_up(self, time_s: float) -> bool:
        """Whether it answers at a time."""
        return is_up(self.outages, time_s)

    def close(self) -> ServerOutcome:
        """What it did."""
        self.outcome.hours = {
            at: ServerHour(frames, batches, busy_s, wait_s, most_waiting, refused, expired)
            for at, frames, batches, busy_s, wait_s, most_waiting, refused, expired in self.hours()
        }
        return self.outcome


_COUNTS = (
    *("frames", "server", "exit", "whole", "unanswered", "skipped", "dropped", "sure", "stepped_in", "missed"),
    *("sent", "refused", "lost", "right", "frame_bytes"),
)


class Tally(_core.Tally):
    """See :class:`headwater.simulations.fleet.tally.Tally`."""

    __slots__ = ()

    def __init__(self, outcome: ClassOutcome, deadline_ms: float | None) -> None:
        """See :class:`headwater.simulations.fleet.tally.Tally`."""
        super().__init__(outcome, _core.Used(), math.inf if deadline_ms is None else deadline_ms)

    def close(self, device_s: float) -> ClassOutcome:
        """Everything in one."""
        outcome = self.outcome
        for name in _COUNTS:
            setattr(outcome, name, getattr(self, name))
        outcome.modes, latency, server_latency = self.counts()
        outcome.latency, outcome.server_latency = Histogram(latency), Histogram(server_latency)
        outcome.hours = {at: Hour(*counts) for at, *counts in self.hours()}
        tally.add_times(cast("tally.Tally", self), self.stages(), device_s)
        return outcome


class Crew(_core.Crew):
    """See :class:`headwater.simulations.fleet.crew.Crew`."""

    __slots__ = ()

    def __init__(
        self,
        devices: DeviceClass,
        model: Model,
        clock: Clock,
        agenda: _core.Agenda,
        tally: Tally,
        routes: Routes,
        end_s: float,
        content_s: float,
    ) -> None:
        """See :class:`headwater.simulations.fleet.crew.Crew`."""
        super().__init__(
            *(devices.name, model, _tables(model), clock, agenda, tally, routes),
            Situation(
                deadline_ms=model.deadline_ms,
                interval_ms=clock.interval_s * 1e3,
                exit_available=model.exit is not None,
                whole_ms=model.slow_whole_ms,
            ),
            Observation(0, 0, 0.0, 0.0, 0.0, "answered"),
            (end_s, content_s, clock.interval_s, devices.slow_share, devices.slow_times),
            (devices.settings.window, clock.pictures_a_burst - 1, clock.simple, routes.outages),
        )


def _tables(model: Model) -> SimpleNamespace:
    """What the core reads of a model."""
    modes, times, local = len(model.widths), model.times, model.exit
    most_groups = max((groups for _, groups in (*model.cut_bytes, *model.cut_right)), default=0)
    none = (0.0,) * modes
    return SimpleNamespace(
        **{name: getattr(model, name) for name in ("head_ms", "mean_bytes", "sigma", "below", "right", "whole_right")},
        local=local is not None,
        sure_above=none if local is None else local.sure_above,
        sure_right=none if local is None else local.sure_right,
        unsure_right=none if local is None else local.unsure_right,
        most_groups=most_groups,
        cut_bytes=_by_cut(model.cut_bytes, modes, most_groups),
        cut_right=_by_cut(model.cut_right, modes, most_groups),
        give_up_s=model.give_up_ms / 1e3,
        prepare_ms=times.prepare_ms,
        exit_ms=times.exit_ms,
        code_ms=times.code_ms,
        whole_ms=times.whole_ms or 0.0,
        spread=times.spread,
    )


def _by_cut(table: Mapping[tuple[int, int], float], modes: int, most_groups: int) -> Sequence[float | None]:
    return [table.get((mode, groups)) for mode in range(modes) for groups in range(most_groups + 1)]
