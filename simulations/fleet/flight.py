"""A frame on its way, from the moment that it is coded."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headwater.simulations.fleet.crew import Crew
    from headwater.simulations.fleet.member import Device


class Flight:
    """What the server, the link and the controller are told of a frame. Times of day in s, the others in ms."""

    __slots__ = (
        *("ahead", "arrived_s", "attempts", "back_s", "batch", "code_ms", "confidence", "crew", "device", "due_s"),
        *("exit_ms", "gone", "groups", "head_ms", "luck", "mode", "prepare_ms", "sent_s", "server_ms", "size"),
        *("taken_s", "told", "unsure_right", "work_s"),
    )

    def __init__(self, crew: Crew, device: Device, taken_s: float, due_s: float) -> None:
        self.crew, self.device, self.taken_s, self.due_s = crew, device, taken_s, due_s
        self.back_s = math.inf
        """When its answer is back, as far as is known."""
        self.told = False
        """The controller knows what became of it; of a late answer it is told once more."""
        self.gone = False
        """No answer will come."""
        self.attempts = 1
        self.server_ms = 0.0
        self.batch = 0
        self.arrived_s = 0.0
        self.mode = self.size = self.ahead = self.luck = 0
        self.groups: int | None = None
        self.prepare_ms = self.head_ms = self.exit_ms = self.code_ms = 0.0
        self.work_s = self.sent_s = self.unsure_right = 0.0
        self.confidence: float | None = None

    def observed(self, told: dict[str, Any]) -> None:
        """Write what every observation of it says."""
        told["mode"], told["sent_bytes"] = self.mode, self.size
        told["attempts"], told["batch"], told["bytes_ahead"] = self.attempts, self.batch, self.ahead
        told["server_ms"], told["sent"] = self.server_ms, True
