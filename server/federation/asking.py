"""What devices are told and asked: the records of a message, made again to the same bytes after a kill.

"round"  what to do: see the fields that are written here
"down"   versions, updates, notes: the steps from the version that the device holds to the round's base; `versions`
are where each update leads to. Empty if it holds the base.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flwr.app import ConfigRecord, Message, RecordDict

if TYPE_CHECKING:
    from headwater.server.federation.companion import Companion
    from headwater.server.federation.entries import Round, Task
    from headwater.server.federation.journal import Journal
    from headwater.server.federation.settings import RoundSettings


def round_record(settings: RoundSettings, number: int, base: str, line: str, companion: Companion) -> dict[str, Any]:
    """What is asked in a round, as plain values for the journal.

    `line` names the line of learning: what a device still owes to another one it forgets.
    """
    record = ConfigRecord(
        {
            "round": number,
            "width": float(settings.width),
            "part": settings.part,
            "epochs": float(settings.epochs),
            "batch": settings.batch,
            "optimizer": settings.optimizer,
            "rate": settings.rate * settings.decay ** (number - 1),
            "seed": (settings.seed * 1_000_003 + number) % (1 << 31),
            "base": base,
            "line": line,
            "scheme": settings.up,
            "distil": float(settings.distil),
            "logit-adjustment": float(settings.logit_adjustment),
            "sparse": "",
            "gather": "",
        }
    )
    companion.ask(number, record)
    return dict(record)


class Asker:
    """Makes messages; those of devices that hold the same version share their records."""

    def __init__(self, journal: Journal, lifetime_s: float) -> None:
        """Read versions from a journal; messages live as long as is said here."""
        self._journal, self._lifetime_s = journal, lifetime_s
        self._made: dict[tuple[str, int, str | None], RecordDict] = {}

    def message(self, task: Task, round_: Round) -> Message:
        """The message of a task; its group is what finds it again after a kill."""
        return Message(
            self.records(task, round_), task.node, task.kind, ttl=self._lifetime_s, group_id=str(round_.number)
        )

    def records(self, task: Task, round_: Round) -> RecordDict:
        """What the message says."""
        held = self._journal.holds(task.node)
        key = (task.kind, round_.number, held)
        if key not in self._made:
            self._made = {other: made for other, made in self._made.items() if other[1] == round_.number}
            self._made[key] = self._records(task, round_.asked["record"], held)
        return self._made[key]

    def _records(self, task: Task, asked: Mapping[str, Any], held: str | None) -> RecordDict:
        steps = self._journal.chain(held, task.base)
        down = ConfigRecord(
            {
                "versions": [step.version for step in steps],
                "updates": [step.change for step in steps],
                "notes": [step.note for step in steps],
            }
        )
        return RecordDict({"round": ConfigRecord({**asked, "base": task.base}), "down": down})
