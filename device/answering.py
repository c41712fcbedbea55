"""One picture's way to its record.

    picture ── controller.choose ──┬─ skip ──────────────────────────────────────────────────────> skipped
                                   ├─ whole ── the whole model on the device ─────────────────────> local
                                   └─ head ── local exit ──┬─ sure, or "local" ────────────────────> local
                                                           └─ controller.refine ── coder ── link ──┬─> edge
                                                              by deadline - slack no usable answer └─> local

Head, coder and whole model run on a worker thread, one picture after the other; controller and link are used on the
event loop only. With a deadline and a local exit every picture has its record by the deadline, whatever the link does:
the exit's answer is there before anything is sent. What the server says afterwards still goes to the controller.

The bundle may be swapped at any moment: each picture keeps to the one that it was begun with, and its frame names it.
Where a bundle does not run after all, or the server will not have it, the picture begins again with the one before.

All waiting is by the monotonic clock. The time of day is in the records, for people, and nowhere else.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from headwater.compression.errors import HeadwaterError
from headwater.device.control.controller import Situation
from headwater.device.outcome import (
    Made,
    answered,
    answered_here,
    late,
    observation,
    skipped,
    stepped_in,
    unsent,
)
from headwater.device.tasks import known
from headwater.protos import edge_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from concurrent.futures import Executor

    from headwater.device.control.controller import Decision
    from headwater.device.feed import Picture
    from headwater.device.head import Seen
    from headwater.device.link import Link
    from headwater.device.loaded import Loaded
    from headwater.device.record import FrameRecord
    from headwater.device.settings import DeviceSettings
    from headwater.device.window import Reply

    Distrust = Callable[[Loaded, str], Awaitable[bool]]
    """Told of a bundle and what is wrong with it; True once another one is in use."""

T = TypeVar("T")


async def _keep(loaded: Loaded, why: str) -> bool:
    """Distrust no bundle: there is no other."""
    del loaded, why
    return False


class Slack:
    """How long before the deadline the server is no longer waited for, so that the exit's answer is not late.

    To turn it into a record takes microseconds. What takes time is that the event loop has to get its turn: the worker
    may hold the interpreter for the 5 ms of Python's switch interval, and on a busy machine the processor goes to
    others first. That lag is measured whenever the worker is done with something, and whenever a frame is given up;
    twice the longest of late ones is left, but never more than a fifth of the deadline, which a stressed device would
    else wait for nothing.
    """

    LEAST_MS = 5.0
    LAGS = 64

    def __init__(self) -> None:
        self._lags_ms: deque[float] = deque(maxlen=self.LAGS)

    def add(self, lag_s: float) -> None:
        """Take how long the event loop took to notice that the worker was done, or that the time was up."""
        self._lags_ms.append(lag_s * 1e3)

    def ms(self, deadline_ms: float) -> float:
        """What to leave of this deadline, ms."""
        return min(max(self.LEAST_MS, 2 * max(self._lags_ms, default=0.0)), deadline_ms / 5)


class Answering:
    """Takes pictures to their records; made by the agent once bundle and link are there."""

    def __init__(
        self, loaded: Loaded, link: Link, worker: Executor, settings: DeviceSettings, distrust: Distrust = _keep
    ) -> None:
        """Nothing is kept open.

        Args:
            loaded: the bundle to begin with.
            link: to the server.
            worker: has one thread.
            settings: of the agent.
            distrust: told of a bundle that cannot be run or that the server will not have.
        """
        self.loaded = loaded
        """The bundle in use; it may be replaced between any two pictures, and each goes on with its own."""
        self.slack = Slack()
        self.pending = 0
        """Pictures that have no record yet."""
        self.on_busy: Callable[[bool], None] = lambda _: None
        """Told when there is a picture for head and coder, and when there is none any more."""
        self._making = 0
        self._link = link
        self._worker = worker
        self._settings = settings
        self._distrust = distrust
        self._turn = asyncio.Lock()
        self._given_up: dict[int, Made] = {}
        self._just_late: Reply | None = None
        """Came between a frame's being given up and its sender's hearing of that."""

    async def answer(
        self, picture: Picture, on_made: Callable[[], None] = lambda: None
    ) -> tuple[FrameRecord, Reply | None, Made]:
        """Take a picture to its record; the reply is None where the link had none.

        ``on_made`` is called when head and coder are done with it, or have failed. Raises what :meth:`Link.send`
        raises, unless the local exit steps in.
        """
        self.pending += 1
        try:
            try:
                with self._busy():
                    made = await self._make(picture)
            finally:
                on_made()
            record, reply = await self._send(made) if made.coded is not None else (self._here(made), None)
            if reply is not None and reply.answer.status == pb.STATUS_UNKNOWN_BUNDLE and await self._left(made, reply):
                record, reply, made = await self.answer(picture)
        finally:
            self.pending -= 1
        return record, reply, made

    def late(self, reply: Reply) -> None:
        """Take the server's answer to a frame that was given up: its time is as good a measurement as any."""
        made = self._given_up.pop(reply.answer.sequence, None)
        if made is None or made.coded is None:
            self._just_late = reply
        elif reply.answer.status == pb.STATUS_OK:
            made.loaded.controller.observe(late(made.coded.mode, len(made.coded.data), reply))

    @contextmanager
    def _busy(self) -> Iterator[None]:
        self._making += 1
        self.on_busy(self._making > 0)
        try:
            yield
        finally:
            self._making -= 1
            self.on_busy(self._making > 0)

    async def _left(self, made: Made, reply: Reply) -> bool:
        """Whether the bundle of a frame that the server will not have is no longer in use, now that it is known."""
        return made.loaded is not self.loaded or await self._distrust(made.loaded, reply.answer.detail)

    # ------------------------------------------------------------ before anything is sent

    async def _make(self, picture: Picture) -> Made:
        async with self._turn:
            loaded = self.loaded
            try:
                return await self._make_with(loaded, picture)
            except HeadwaterError:
                raise
            # onnxruntime's exceptions derive from Exception only, a class for each of its status codes.
            except Exception as error:
                if not await self._distrust(loaded, f"it does not run: {error}"):
                    raise
            return await self._make_with(self.loaded, picture)

    async def _make_with(self, loaded: Loaded, picture: Picture) -> Made:
        decision = loaded.controller.choose(self._situation(loaded, picture))
        if decision.action == "skip":
            return self._made(loaded, picture, decision)
        if decision.action == "whole":
            assert loaded.whole is not None, "the controller chose the whole model, which the device has not"
            whole = await self._in_worker(partial(loaded.whole.answer, picture.image))
            return replace(self._made(loaded, picture, decision), whole=whole)
        maker = loaded.maker
        seen = await self._in_worker(partial(maker.look, picture.image, decision.mode))
        decision = self._after_head(loaded, picture, decision, seen)
        made = replace(self._made(loaded, picture, decision), seen=seen)
        if decision.action == "local":
            assert made.exit_results, "the controller chose the local exit, which the device has not"
            return made
        code = partial(maker.code, seen, decision.mode, decision.groups, decision.most_bytes)
        coded = await self._in_worker(code)
        return replace(made, coded=coded, mode=loaded.manifest.modes[coded.mode])

    def _made(self, loaded: Loaded, picture: Picture, decision: Decision) -> Made:
        taken = datetime.now(UTC) - timedelta(seconds=time.monotonic() - picture.taken_s)
        mode = loaded.manifest.modes[decision.mode]
        return Made(picture, taken, decision, mode, self._settings.deadline_ms, loaded=loaded)

    def _after_head(self, loaded: Loaded, picture: Picture, decision: Decision, seen: Seen) -> Decision:
        """What to do now that the head has run and the exit, if there is one, has judged."""
        if decision.action == "local":
            return decision
        judged, give_up_s = seen.judged, self._give_up_s(loaded, picture)
        if judged is not None and judged.sure:
            return replace(decision, action="local", reason="the exit is sure")
        if judged is not None and give_up_s is not None and time.monotonic() >= give_up_s:
            return replace(decision, action="local", reason="no time left to send")
        return loaded.controller.refine(
            decision, self._situation(loaded, picture), judged.confidence if judged is not None else None
        )

    def _here(self, made: Made) -> FrameRecord:
        number = self._link.window.number()
        record = skipped(made, number) if made.decision.action == "skip" else answered_here(made, number)
        made.loaded.controller.observe(observation(record, None))
        return record

    # ------------------------------------------------------------ over the link

    async def _send(self, made: Made) -> tuple[FrameRecord, Reply | None]:
        coded, sent_s, give_up_s = made.coded, time.monotonic(), self._give_up_s(made.loaded, made.picture)
        assert coded is not None
        controller, bundle_id = made.loaded.controller, made.loaded.bundle_id
        steps_in = bool(made.exit_results) and made.deadline_ms is not None
        try:
            reply = await self._link.send(
                coded.parts or coded.data, bundle_id=bundle_id, tasks=self._settings.tasks, give_up_s=give_up_s
            )
        except HeadwaterError as error:
            if not steps_in:
                raise
            record = unsent(made, self._link.window.number(), str(error))
            controller.observe(observation(record, None))
            return record, None
        if give_up_s is not None and (lag_s := time.monotonic() - give_up_s) > 0:
            self.slack.add(lag_s)
        record = answered(made, known(made.loaded.manifest, self._link.welcome.tasks), reply)
        if record.status != "ok" and steps_in:
            record = stepped_in(made, record)
        controller.observe(observation(record, reply, self._flew_ms(made, reply, sent_s)))
        if (came := self._just_late) is not None and came.answer.sequence == reply.answer.sequence:
            self.late(came)
        return record, reply

    def _flew_ms(self, made: Made, reply: Reply, sent_s: float) -> float:
        """How long a frame without an answer was on its way; it is remembered, if it still is."""
        if reply.answer.status != pb.STATUS_EXPIRED:
            return 0.0
        if reply.round_trip_s is not None:  # the server's word: it came too late to be run
            return reply.round_trip_s * 1e3
        sequence, came = reply.answer.sequence, self._just_late
        if sequence not in self._link.window.flying and (came is None or came.answer.sequence != sequence):
            return 0.0
        self._given_up[sequence] = made
        # No more than a window of them can be flying, and the oldest are those of connections that are gone.
        if len(self._given_up) > self._settings.window:
            del self._given_up[next(iter(self._given_up))]
        return (time.monotonic() - sent_s - reply.wait_s) * 1e3

    # ------------------------------------------------------------ time, and what is known

    def _slack_ms(self, loaded: Loaded) -> float:
        """None is left where no exit can step in: waiting to the end is then all that can be done."""
        deadline_ms = self._settings.deadline_ms
        return self.slack.ms(deadline_ms) if deadline_ms is not None and loaded.maker.local_exit else 0.0

    def _give_up_s(self, loaded: Loaded, picture: Picture) -> float | None:
        deadline_ms = self._settings.deadline_ms
        return None if deadline_ms is None else picture.taken_s + (deadline_ms - self._slack_ms(loaded)) / 1e3

    def _situation(self, loaded: Loaded, picture: Picture) -> Situation:
        now_s, settings, whole = time.monotonic(), self._settings, loaded.whole
        link, window, hint = self._link, self._link.window, self._link.mode_hint
        # In the order of their writing: the first has been on its way for longest.
        oldest = next(iter(window.flying.values()), None)
        oldest_ms = (now_s - oldest.written_s) * 1e3 if oldest is not None else 0.0
        return Situation(
            deadline_ms=None if settings.deadline_ms is None else settings.deadline_ms - self._slack_ms(loaded),
            age_ms=(now_s - picture.taken_s) * 1e3,
            interval_ms=1e3 / settings.fps if settings.fps else None,
            frames_unanswered=window.unanswered,
            bytes_unanswered=window.bytes_flying,
            silent_ms=min((now_s - link.heard_s) * 1e3, oldest_ms),
            held_ms=(window.held_for_s(now_s) or 0.0) * 1e3,
            connected=link.connected.is_set(),
            max_bytes=hint.max_bytes or None if hint is not None else None,
            max_groups=min(hint.max_groups, loaded.maker.groups) or None if hint is not None else None,
            time_s=now_s,
            oldest_ms=oldest_ms,
            exit_available=loaded.maker.local_exit is not None,
            whole_ms=whole.slow_ms if whole is not None else None,
        )

    async def _in_worker(self, work: Callable[[], T]) -> T:
        """Run it on the worker thread, and measure how late the event loop sees that it is done."""

        def timed() -> tuple[T, float]:
            return work(), time.monotonic()

        result, done_s = await asyncio.get_running_loop().run_in_executor(self._worker, timed)
        self.slack.add(time.monotonic() - done_s)
        return result
