"""Which mode to use for the next frame.

A controller is pure: it is told what was measured and says what to do. No clock, no socket: the agent, a simulation
and a test run the same code::

    decision = controller.choose(situation)                         # before each frame
    decision = controller.refine(decision, situation, confidence)   # of one to be sent, after its head has run
    controller.observe(observation)                                 # after each answer, or failure to get one

:class:`FixedController` does as it was told; :class:`headwater.device.control.deadline.DeadlineController` is the rule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from headwater.compression.bundle import Bundle

OVERHEAD_BYTES = 80
"""What a frame has on its way up beside its own bytes: 56 of HTTP/2, gRPC and protobuf, and what IP and TCP add, 40 to
52 by their options. An answer, of 86 and the same, comes down another way, where frames do not wait for it."""
Action = Literal["send", "local", "whole", "skip"]
"""What is done with a picture: code it for the server, answer it by the local exit, run the whole model on the device,
or leave it unanswered."""
Outcome = Literal["answered", "late", "local", "whole", "skipped", "expired", "failed"]


@dataclass(frozen=True)
class Situation:
    """What is known when a mode has to be chosen. Times in ms, sizes in bytes, 0 where nothing is known."""

    deadline_ms: float | None = None
    """From taking the picture to having its answer, less what the agent needs to hand it on; None without one."""
    age_ms: float = 0.0
    """How much of it has passed already."""
    interval_ms: float | None = None
    """Between two pictures, where there is a frame rate."""
    frames_unanswered: int = 0
    """Own frames that wait or are on their way."""
    bytes_unanswered: int = 0
    silent_ms: float = 0.0
    """Since the last sign of life of the server, while frames were unanswered."""
    held_ms: float = 0.0
    """How long writing is held yet because the server was full."""
    connected: bool = True
    max_bytes: int | None = None
    """The server's wish: no mode whose mean frame is larger, where there is one."""
    max_groups: int | None = None
    """The server's wish: no more channel groups."""
    time_s: float = 0.0
    """Monotonic seconds of an unknown start: for budgets, pauses and forgetting."""
    oldest_ms: float = 0.0
    """How long the oldest unanswered frame has been on its way."""
    exit_available: bool = False
    """The local exit can answer what is asked."""
    whole_ms: float | None = None
    """Slow end of the whole model's time on this device when it has the processor to itself; None: not available."""

    @property
    def left_ms(self) -> float:
        """Until the deadline; infinite without one."""
        return math.inf if self.deadline_ms is None else self.deadline_ms - self.age_ms


@dataclass(frozen=True)
class Decision:
    """What to do with a picture."""

    mode: int
    """Index into the manifest's modes; its width is what the head runs at where anything but "whole" is done."""
    groups: int | None = None
    """Channel groups to send; None for all."""
    action: Action = "send"
    most_bytes: int | None = None
    """The longest frame that is still foretold to be in time: a longer one is coded again at a lower gain."""
    reason: str = ""
    """A few words for records and the screen."""


@dataclass(frozen=True)
class Observation:
    """What one frame took. Times in ms.

    A frame that was sent and had to be answered by the local exit is told of twice: with the outcome "local", ``sent``
    and ``waited_ms`` when the device answers, and with "late" when the server's answer comes after all; the device's
    own times are in the first only.
    """

    mode: int
    sent_bytes: int
    """Of the frame, without OVERHEAD_BYTES."""
    prepare_ms: float
    head_ms: float
    """The network on the device: the head, or with the outcome "whole" the whole model."""
    code_ms: float
    outcome: Outcome
    """"answered": by the server, in time. "late": by the server, when it was no longer waited for. "local", "whole":
    by the device. "skipped": not at all, nor was it tried. "expired": no answer by the deadline. "failed": refused for
    good."""
    attempts: int = 1
    """How often the frame was written; more than 1 after a broken connection or a full server."""
    round_trip_ms: float | None = None
    """From writing the frame for the last time to its answer; None where none came."""
    server_ms: float = 0.0
    """What of it the server took: queue, decode and run."""
    batch: int = 0
    bytes_ahead: int = 0
    """Own bytes that were unanswered when this frame was written."""
    exit_ms: float = 0.0
    """What the local exit took, where there is one."""
    time_s: float = 0.0
    """When this was observed, by the clock of :attr:`Situation.time_s`."""
    waited_ms: float = 0.0
    """Of a frame that flew and has no answer: how long. What it takes is longer than that."""
    confidence: float | None = None
    """The local exit's score of its own answer, where it has judged."""
    sent: bool = False
    """A frame of outcome "local" flew."""


class Controller(Protocol):
    """Anything that chooses modes; `tests/device/control/test_controller.py` holds what every controller must do."""

    def choose(self, situation: Situation) -> Decision:
        """Say what to do with the next picture."""

    def refine(self, decision: Decision, situation: Situation, confidence: float | None) -> Decision:
        """Say it again when the head has run: the width stays, gain and groups may change, or it ends as "local".

        ``decision`` is what :meth:`choose` said and was to be sent; ``situation`` has the age by now; ``confidence``
        is the local exit's score, None where there is none.
        """

    def observe(self, observation: Observation) -> None:
        """Learn from a frame that is done with."""


class FixedController:
    """Always the same mode, but for a server's wish to send fewer groups."""

    def __init__(self, mode: int) -> None:
        self.mode = mode

    @classmethod
    def of(cls, bundle: Bundle, width: float | None = None, gain: int | None = None) -> FixedController:
        """Take the mode of this width and gain; what is not given is the greatest. Raises :class:`BundleError`."""
        modes = bundle.manifest.modes
        width = bundle.manifest.widths[-1] if width is None else width
        gain = max((mode.gain for mode in modes if mode.width == width), default=0) if gain is None else gain
        return cls(bundle.mode(width, gain).index)

    def choose(self, situation: Situation) -> Decision:
        """The mode that was set."""
        return Decision(self.mode, situation.max_groups)

    def refine(self, decision: Decision, situation: Situation, confidence: float | None) -> Decision:  # noqa: ARG002
        """The same again."""
        return decision

    def observe(self, observation: Observation) -> None:
        """Nothing to learn."""
