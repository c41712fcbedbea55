"""What may be chosen from, by the server's wishes: each table is drawn up once, and prepared for weighing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwater.device.control.controller import OVERHEAD_BYTES, Decision
from headwater.device.control.kernel import decisions_type
from headwater.device.control.options import table
from headwater.device.control.ways import Ways

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from headwater.compression.manifest import Mode
    from headwater.device.control._ways import Decisions
    from headwater.device.control.kernel import Implementation
    from headwater.device.control.options import Option, Table
    from headwater.device.control.policy import Policy

IN_TIME, NO_DEADLINE = tuple(f"in time: {percent}%" for percent in range(101)), "no deadline"
"""Reasons for sending a frame."""
Wish = tuple[int | None, int | None]
"""Of the server: the most channel groups, and the most bytes of a mean frame, as options.py takes them."""


@dataclass(frozen=True, eq=False)
class Offer:
    """What there is at one wish."""

    table: Table
    ways: Ways
    """Of all widths."""
    of_width: Mapping[float, Ways]
    """Of one width."""
    above: Mapping[Option, float]
    """The best accuracy of an option that has more bytes; 0 of the largest."""
    below: Mapping[Option, Option | None]
    """The next smaller option of the same width."""


class Offers:
    """Offers by wish; devices of the same modes, policy and tasks may share them."""

    def __init__(
        self,
        modes: Sequence[Mode],
        policy: Policy,
        tasks: Collection[str] = (),
        implementation: Implementation | None = None,
    ) -> None:
        """Take the modes of a manifest, what the user wants, and the tasks that are asked for; none for all."""
        self.implementation = implementation
        self._modes, self._policy, self._tasks = modes, policy, tasks
        self.widths = sorted({mode.width for mode in modes})
        self.number_of = tuple(self.widths.index(mode.width) for mode in modes)
        """Of each mode's width."""
        self.macs = {mode.width: mode.head_macs for mode in modes}
        """Of the head of each width."""
        self.mean_bytes = [mode.mean_bytes + OVERHEAD_BYTES for mode in modes]
        """On the wire, of each mode."""
        self._offers: dict[Wish, Offer] = {}
        self._decisions: Decisions | None = None

    def at(self, wish: Wish) -> Offer:
        """What may be chosen from."""
        if wish not in self._offers:
            self._offers[wish] = self._drawn_up(table(self._modes, self._accuracy, *wish))
        return self._offers[wish]

    def decisions(self) -> Decisions:
        """What makes decisions in C, for all controllers that share these offers."""
        if self._decisions is None:
            self._decisions = decisions_type()(Decision, (*IN_TIME, NO_DEADLINE), len(self._modes))
        return self._decisions

    def __getstate__(self) -> dict[str, object]:
        """Without what is of this process."""
        return {**vars(self), "_decisions": None}

    def _drawn_up(self, of: Table) -> Offer:
        one = {width: self._ways({width: options}) for width, options in of.items()}
        below: dict[Option, Option | None] = {}
        for options in of.values():
            below.update(zip(options, (None, *options), strict=False))
        return Offer(of, self._ways(of), one, _above(below), below)

    def _ways(self, of: Table) -> Ways:
        return Ways(of, self.widths, self.implementation)

    def _accuracy(self, of_tasks: Mapping[str, float]) -> float:
        asked = {task: accuracy for task, accuracy in of_tasks.items() if not self._tasks or task in self._tasks}
        return self._policy.accuracy(asked)


def _above(options: Collection[Option]) -> dict[Option, float]:
    """The best accuracy of those that have more bytes."""
    return {
        option: max((other.accuracy for other in options if other.mean_bytes > option.mean_bytes), default=0.0)
        for option in options
    }
