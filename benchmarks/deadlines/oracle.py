"""What could have been done: for each frame the most accurate action that is in time, by one who knows the link.

The oracle knows the trace (what the link will carry, and when), the delays, the bytes that each very picture has in
each mode, and the times that device and server took when they were measured at the start. It takes the frames in
order; each may use the device, the way up and the way down only when its earlier frames have left them::

    due ──> device free ──> head, exit, coder ──> way up: free, trace, delay ──> server ──> way down: free, trace, delay
                            │ local: the exit's answer
                            └ whole: the whole model's

Among those that are in time the one with the greatest accuracy by the bundle's table wins, then the one with the
fewest bytes, then the quickest: not even the oracle knows whether an answer will be right. It is *greedy*: it never
gives up accuracy now so that a later frame may have more, so that where frames queue on the link a wiser one could be a
little better still. Nothing here has a clock or a socket.

Times in s, sizes in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from headwater.simulations.trace import LinkTrace


@dataclass(frozen=True)
class Option:
    """One thing that can be done with a picture."""

    action: Literal["send", "local", "whole"]
    mode: int
    """Whose frame is sent; of a local answer, any mode of the width."""
    accuracy: float
    """By the bundle's table, 0 to 1."""
    device_s: float
    """Of the device, until the frame is coded or the answer is there."""


@dataclass(frozen=True)
class Costs:
    """What a sent frame costs beside its own bytes and the device's time."""

    server_s: float
    """From the frame's last byte at the server to the answer's first on the way back, and handing it on."""
    up_bytes: float
    """Of headers, with each frame."""
    down_bytes: float
    """Of an answer."""


@dataclass(frozen=True)
class Chosen:
    """What the oracle did with a frame; ``option`` None: nothing would have been in time."""

    option: Option | None
    latency_s: float = 0.0
    size: int = 0
    """Bytes of the frame without headers; 0 where nothing was sent."""


class Oracle:
    """Knows a link's future."""

    def __init__(self, link: LinkTrace, options: Iterable[Option], costs: Costs) -> None:
        self._link = link
        self._options = sorted(options, key=lambda option: -option.accuracy)
        self._costs = costs
        self._device_free = self._up_free = self._down_free = 0.0

    @classmethod
    def choose(
        cls,
        link: LinkTrace,
        options: Iterable[Option],
        costs: Costs,
        frames: Sequence[tuple[float, Mapping[int, int]]],
        deadline_s: float,
    ) -> list[Chosen]:
        """Decide about every frame: (when its picture is taken, by the link's time; its bytes by mode)."""
        oracle = cls(link, options, costs)
        return [oracle._next(due_s, sizes, deadline_s) for due_s, sizes in frames]

    def _next(self, due_s: float, sizes: Mapping[int, int], deadline_s: float) -> Chosen:
        best: _Way | None = None
        for option in self._options:
            if best is not None and option.accuracy < best.option.accuracy:
                break
            way = self._way(option, due_s, sizes)
            if way.answer_s - due_s <= deadline_s and (best is None or way.cost < best.cost):
                best = way
        if best is None:
            return Chosen(None)
        self._device_free, self._up_free, self._down_free = best.coded_s, best.up_free, best.down_free
        return Chosen(best.option, best.answer_s - due_s, best.size)

    def _way(self, option: Option, due_s: float, sizes: Mapping[int, int]) -> _Way:
        coded = max(due_s, self._device_free) + option.device_s
        if option.action != "send":
            return _Way(option, coded, self._up_free, self._down_free, coded, 0)
        size, link, costs = sizes[option.mode], self._link, self._costs
        sent = link.up.finish(max(coded, self._up_free), size + costs.up_bytes)
        served = sent + link.up_delay_s + costs.server_s
        back = link.down.finish(max(served, self._down_free), costs.down_bytes)
        return _Way(option, coded, sent, back, back + link.down_delay_s, size)


@dataclass(frozen=True)
class _Way:
    """A frame's way, if this is done with it: when it leaves what it uses, and when its answer is there."""

    option: Option
    coded_s: float
    up_free: float
    down_free: float
    answer_s: float
    size: int

    @property
    def cost(self) -> tuple[int, float]:
        """Of two that are equally accurate the one of fewer bytes, then the quicker."""
        return self.size, self.answer_s
