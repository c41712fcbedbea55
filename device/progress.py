"""Whether a running agent gets on: what the watchdog asks before it tells systemd so.

A device whose link is down gets on, and so does one whose camera is missing: both are tried again. One whose camera's
driver hangs in a read does not, nor one whose frames are long past their deadline and neither answered nor given up.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from headwater.device.screen import summary

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.device.agent import Agent
    from headwater.device.feed import Feed
    from headwater.device.screen import State, Totals

PATIENCE_S = 60.0
"""Every wait of a live source ends far earlier, with a picture or a failure; so does a frame's, after its deadline."""


class Progress:
    """Of one run of ``headwater device``; used on the event loop."""

    def __init__(
        self,
        agent: Agent,
        feed: Feed,
        totals: Totals,
        state: Callable[[], State],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Watch these; ``clock`` in seconds, the feed's."""
        self._agent, self._feed, self._totals, self._state = agent, feed, totals, state
        self._clock = clock
        self._done, self._done_s = 0, clock()

    async def turn(self) -> None:
        """Return when the head's thread has done what was handed to it before."""
        await self._agent.turn()

    def status(self) -> str:
        """One line for people: the link, then what the run came to so far."""
        state = self._state()
        link = "connected" if state.connected else state.why_not or "connecting"
        return f"{link}; {summary(self._totals, state)}"

    def stuck(self) -> str:
        """What does not get on; empty where all does."""
        silent_s = self._feed.silent_s(self._clock())
        if silent_s > PATIENCE_S:
            return f"the source has neither given a picture nor failed for {silent_s:.0f} s"
        late_s = self._late_s()
        if late_s > PATIENCE_S:
            return f"{self._agent.pending} frames are past their deadline, and none of them ended for {late_s:.0f} s"
        return ""

    def _late_s(self) -> float:
        """How long ago frames should have been answered or given up; 0 where none is due, or none has a deadline."""
        deadline_ms, done = self._agent.settings.deadline_ms, self._totals.statuses.total()
        if done != self._done or not self._agent.pending or deadline_ms is None:
            self._done, self._done_s = done, self._clock()
            return 0.0
        return max(self._clock() - self._done_s - deadline_ms / 1e3, 0.0)
