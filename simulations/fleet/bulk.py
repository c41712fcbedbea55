"""Bytes that go at low priority, and federated rounds, which are made of them: down, training, up."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from headwater.server.rollout.canary import ranked
from headwater.simulations.fleet.links import Bulk, RateLink
from headwater.simulations.fleet.outcome import RoundOutcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwater.simulations.fleet.agenda import Agenda
    from headwater.simulations.fleet.crew import Crew
    from headwater.simulations.fleet.member import Device
    from headwater.simulations.fleet.scenario import Round

    Then = Callable[[Crew, Device, float], None]


class Mover:
    """Moves bulk over the links of devices, one transfer a direction at a time."""

    def __init__(self, agenda: Agenda) -> None:
        """``agenda``: of the simulation."""
        self._agenda = agenda

    def down(self, crew: Crew, device: Device, size: float, now_s: float, then: Then) -> None:
        """Send a device so many bytes, then call ``then(crew, device, time)``."""
        self._begin((crew, device, size, False, then), now_s)

    def up(self, crew: Crew, device: Device, size: float, now_s: float, then: Then) -> None:
        """Have a device send so many bytes."""
        self._begin((crew, device, size, True, then), now_s)

    def _begin(self, what: Any, now_s: float) -> None:  # noqa: ANN401 - what an event carries
        _, device, size, up, _ = what
        link, line = device.link, device.line
        assert isinstance(link, RateLink), "no bulk goes over LoRa"
        if (line.bulk_up if up else line.bulk_down) is not None:
            self._agenda.at(link.bulk_end(line, up=up), self._begin, what)  # after the one before
            return
        bulk = Bulk(max(now_s, line.up_s if up else line.down_s), size)
        if up:
            line.bulk_up = bulk
        else:
            line.bulk_down = bulk
        self._look(what, now_s)

    def _look(self, what: Any, now_s: float) -> None:  # noqa: ANN401 - what an event carries
        """See whether it is through; frames that came between may have put it off."""
        crew, device, size, up, then = what
        line = device.line
        end_s = device.link.bulk_end(line, up=up)
        if end_s > now_s:
            self._agenda.at(end_s, self._look, what)
            return
        outcome, used = crew.tally.outcome, crew.tally.used
        if up:
            line.bulk_up = None
            outcome.bulk_up_bytes += size
            used.up_bytes += size
            used.send_s += device.link.bulk_s(size, up=True)
        else:
            line.bulk_down = None
            outcome.bulk_down_bytes += size
            used.down_bytes += size
            used.receive_s += device.link.bulk_s(size, up=False)
        line.last_s = max(line.last_s, now_s)
        then(crew, device, now_s)


class FederatedRound:
    """One round on one server."""

    def __init__(
        self,
        round_: Round,
        at_h: float,
        serial: int,
        server: str,
        devices: Sequence[tuple[str, Crew, Device]],
        end_s: float,
    ) -> None:
        """``devices``: with their names, those that may take part; ``end_s``: of the simulation."""
        by_name = {name: (crew, device) for name, crew, device in devices}
        count = math.ceil(round_.share * len(by_name))
        self._members = [by_name[name] for name in ranked(by_name, serial)[:count]]
        self._round, self._at_s, self._end_s = round_, at_h * 3600.0, end_s
        self._took_s: list[float] = []
        self._server, self._at_h = server, at_h

    def begin(self, mover: Mover, agenda: Agenda) -> None:
        """Let it start, when it is time."""
        self._mover, self._agenda = mover, agenda
        agenda.at(self._at_s, self._start, None)

    def _start(self, _: object, now_s: float) -> None:
        for crew, device in self._members:
            self._mover.down(crew, device, self._round.down_mb * 1e6, now_s, self._train)

    def _train(self, crew: Crew, device: Device, now_s: float) -> None:
        if now_s >= self._end_s:
            return
        device.pace = self._round.slowdown
        crew.tally.train_s += min(self._round.train_s, self._end_s - now_s)
        self._agenda.at(now_s + self._round.train_s, self._trained, (crew, device))

    def _trained(self, member: tuple[Crew, Device], now_s: float) -> None:
        crew, device = member
        device.pace = 1.0
        if now_s < self._end_s:
            self._mover.up(crew, device, self._round.up_mb * 1e6, now_s, self._arrived)

    def _arrived(self, crew: Crew, device: Device, now_s: float) -> None:
        del crew, device
        if now_s <= self._end_s:
            self._took_s.append(now_s - self._at_s)

    def outcome(self) -> RoundOutcome:
        """What came of it."""
        took = sorted(self._took_s)
        times = (took[0], took[len(took) // 2], took[-1]) if took else (0.0, 0.0, 0.0)
        return RoundOutcome(self._server, self._at_h, len(self._members), len(took), *times)
