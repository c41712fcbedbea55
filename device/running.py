"""``headwater device`` while it runs: feed, agent and screen together, and an orderly end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

from rich.console import Console

from headwater.device.agent import Agent
from headwater.device.feed import Feed
from headwater.device.progress import Progress
from headwater.device.screen import Screen, State
from headwater.device.sources import open_source
from headwater.device.watch import Watch
from headwater.device.watchdog import Watchdog

if TYPE_CHECKING:
    from headwater.device.record import FrameRecord
    from headwater.device.settings import DeviceSettings

GRACE_S = 3.0
"""After a signal, how long answers that are due are waited for."""
REFRESH_S = 0.5
SWITCH_INTERVAL_S = 0.0005
"""How long a thread that reads a new bundle may keep the interpreter from a picture's, at each step of its way.
Python's own is 5 ms."""


async def run(settings: DeviceSettings, *, as_json: bool = False, watch: bool = False) -> int:
    """Run the agent until its source ends, ``count`` is reached or a signal comes; the exit status.

    0: every frame was answered. 1: some were given up. ``watch`` draws the last frames, at a terminal.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    agent = Agent(settings.bundle_path, settings=settings, connect_timeout_s=None)
    source = open_source(settings.source)
    feed = Feed(source, settings.fps, repeat=settings.repeat, wait_for_source=settings.wait_for_source)
    screen = Screen(Console(), as_json=as_json, watch=Watch() if watch else None)
    over = asyncio.Event()
    work = asyncio.create_task(_work(agent, feed, screen, over))
    _stop_on_signals(feed, work, over)
    try:
        await work
    except asyncio.CancelledError:
        return 1
    return 0 if screen.totals.answered == screen.totals.statuses.total() else 1


async def _work(agent: Agent, feed: Feed, screen: Screen, over: asyncio.Event) -> None:
    """Answer pictures to the end of the feed; once it is ``over``, no answer is waited for."""
    async with agent, feed:

        def state() -> State:
            link = agent.link
            connected, why_not = link.connected.is_set(), str(link.last_error or "")
            kept = agent.spool.stats if agent.spool is not None else None
            learning = agent.learner.counts if agent.learner is not None else None
            return State(connected, why_not, agent.pending, feed.dropped, feed.skipped, kept, learning)

        def show(record: FrameRecord) -> None:
            screen.show(record, state())

        progress = Progress(agent, feed, screen.totals, state)
        answers = asyncio.create_task(agent.run(feed, show, agent.settings.count))
        try:
            async with Watchdog.of(os.environ, progress):
                with screen:
                    while not (await asyncio.wait([answers], timeout=REFRESH_S))[0]:
                        screen.wait(state())
                        if over.is_set():
                            agent.link.window.stop("the agent was stopped before an answer came", time.monotonic())
        finally:
            screen.summary(state())
            answers.cancel()
            await asyncio.wait([answers])
        answers.result()


def _stop_on_signals(feed: Feed, work: asyncio.Task[None], over: asyncio.Event) -> None:
    """First signal: no more pictures, a moment for the answers that are due, then a record without one for the others.

    Second signal, or if that takes long: end now.
    """
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, work.cancel)
        feed.stop()
        loop.call_later(GRACE_S, over.set)
        loop.call_later(2 * GRACE_S, work.cancel)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
