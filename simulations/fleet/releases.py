"""A roll-out on one server: who has the new bundle, and what becomes of it by the product's rules (server/rollout).

At its hour a release reaches the first of the server's devices, in the order that the product has for it; each fetches
the bundle at low priority, and swaps. From then on what the server answers counts for the bundle that the frame came
from, and with every report the rules say: wait, widen, or back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.server.rollout import canary
from headwater.simulations.fleet.chance import draw, key_of, share
from headwater.simulations.fleet.outcome import RolloutOutcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.simulations.fleet.agenda import Agenda
    from headwater.simulations.fleet.bulk import Mover
    from headwater.simulations.fleet.crew import Crew
    from headwater.simulations.fleet.flight import Flight
    from headwater.simulations.fleet.member import Device
    from headwater.simulations.fleet.scenario import Rollout


class _Counts:
    """What devices report of a bundle."""

    def __init__(self) -> None:
        self.answered = self.failed = self.judged = self.agreed = 0
        self.confidence = 0.0

    def figures(self) -> canary.Figures:
        return canary.Figures(self.answered, self.failed, self.judged, self.agreed, self.confidence)


class Release:
    """One release on one server."""

    def __init__(
        self, rollout: Rollout, serial: int, server: str, devices: Sequence[tuple[str, Crew, Device]], end_s: float
    ) -> None:
        """``devices``: with their names; ``end_s``: of the simulation."""
        self.outcome = RolloutOutcome(server, rollout.at_h, len(devices))
        self.gain = rollout.accuracy_gain / 100
        self._rollout, self._serial, self._end_s = rollout, serial, end_s
        self._key = key_of("release", server, serial)
        by_name = {name: (crew, device) for name, crew, device in devices}
        self._order = [by_name[name] for name in canary.ranked(by_name, serial)]
        self._new, self._old = _Counts(), _Counts()
        self._share = rollout.rules.share
        self._from_frames = self._members = self._reached = 0
        self._trouble: list[str] = []

    # ------------------------------------------------------------ what devices report

    def answered(self, device: Device, flight: Flight, *, local: bool) -> bool:
        """Count a frame that the server answered; False if it failed on it. ``local``: the exit judged it too."""
        counts, rollout, new = self._new if device.uses_new else self._old, self._rollout, device.uses_new
        luck = draw(self._key, flight.luck)
        if new and (luck & 0xFFFF) < rollout.failures / 100 * 0x10000:
            counts.failed += 1
            return False
        counts.answered += 1
        counts.confidence += max(rollout.confidence - (rollout.confidence_fall / 100 if new else 0.0), 0.0)
        if local:
            counts.judged += 1
            agree = rollout.agreement - (rollout.agreement_fall / 100 if new else 0.0)
            counts.agreed += (luck >> 16 & 0xFFFF) < agree * 0x10000
        return True

    # ------------------------------------------------------------ turns

    def begin(self, mover: Mover, agenda: Agenda) -> None:
        """Offer it, when it is time."""
        self._mover, self._agenda = mover, agenda
        agenda.at(self._rollout.at_h * 3600.0, self._turn, None)

    def _turn(self, _: object, now_s: float) -> None:
        """What the server does when devices have reported."""
        if now_s >= self._end_s or self.outcome.ended == "back":
            return
        verdict = canary.decide(
            self._new.figures(),
            self._old.figures(),
            self._rollout.rules,
            from_frames=self._from_frames,
            everywhere=self._share >= 1,
            reached=self._reached,
            trouble_of=self._trouble,
        )
        if verdict.do != "wait":
            self.outcome.steps.append((now_s - self._rollout.at_h * 3600.0, verdict.do, verdict.why))
        if verdict.do == "back":
            self._back()
            return
        if verdict.do == "widen":
            self._share *= self._rollout.rules.wider
            self._from_frames = self._new.figures().frames
        self.outcome.ended = "all" if self._share >= 1 else "canary"
        self._offer(now_s)
        self._agenda.at(now_s + self._rollout.report_s, self._turn, None)

    def _offer(self, now_s: float) -> None:
        more = canary.room(min(self._share, 1.0), len(self._order), self._members)
        for crew, device in self._order[self._members : self._members + more]:
            self._mover.down(crew, device, self._rollout.mb * 1e6, now_s, self._fetched)
        self._members += more

    def _fetched(self, crew: Crew, device: Device, now_s: float) -> None:
        """A device has it: it uses it, unless it refuses it or it has been gone back from meanwhile."""
        if now_s >= self._end_s or self.outcome.ended == "back":
            return
        self._reached += 1
        if share(device.key, -100 - self._serial) < self._rollout.refuse:
            self._trouble.append("its golden input fails")
            return
        device.uses_new = True
        device.controller = crew.model.make()  # it begins to learn anew, as with every bundle
        for flight in device.flights:
            flight.told = True
        self.outcome.reached += 1

    def _back(self) -> None:
        self.outcome.ended = "back"
        for crew, device in self._order:
            if device.uses_new:
                device.uses_new, device.controller = False, crew.model.make()
        self.outcome.reached = 0
