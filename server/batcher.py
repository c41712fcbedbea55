"""Drives the rules of :mod:`headwater.server.batch_queue` on asyncio, with batches in worker threads."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Generic

from headwater.server.batch_queue import BatchQueue, ResultT, Ticket, WorkT

Run = Callable[[Sequence[Ticket[WorkT, ResultT]], Callable[[Sequence[ResultT]], None]], None]
"""Runs a batch in a worker thread, and hands over a result for each ticket, in order; no answer waits for what it does
after that."""


class Batcher(Generic[WorkT, ResultT]):
    """Runs a :class:`BatchQueue` on the running event loop, batches in worker threads.

    Args:
        queue: the rules and their state; from now on touched on the event loop only.
        run: see :data:`Run`.
        on_error: called on the event loop when `run` raised; tickets without a result are FAILED.
        cores: a core for each worker, by number; none given, the system moves them about.
    """

    def __init__(
        self,
        queue: BatchQueue[WorkT, ResultT],
        run: Run[WorkT, ResultT],
        on_error: Callable[[BaseException], None],
        cores: Sequence[int] = (),
    ) -> None:
        self.queue = queue
        self.submitted_s = -math.inf
        """When the last frame came, by the event loop's clock."""
        self._run = run
        self._on_error = on_error
        self._loop = asyncio.get_running_loop()
        # What workers have to tell, and a bell that rings once for each. asyncio's own way in from a thread is a pipe
        # that it reads until there is nothing: a twentieth of a millisecond more for a lone frame.
        self._news: deque[Callable[[], None]] = deque()
        self._bell = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._loop.add_reader(self._bell, self._hear)
        # Plain threads: an executor's future and locks cost a lone frame a twentieth of a millisecond.
        self._batches: SimpleQueue[list[Ticket[WorkT, ResultT]] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, args=cores[number : number + 1], name=f"batch-{number}", daemon=True)
            for number in range(queue.limits.workers)
        ]
        for thread in self._threads:
            thread.start()
        self._turn: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    def submit(self, ticket: Ticket[WorkT, ResultT]) -> None:
        """Queue a ticket; raises :class:`QueueFullError`. Its `settle` is called later, never from here."""
        self.submitted_s = self._loop.time()
        self.queue.push(ticket, self.submitted_s)
        self._idle.clear()
        # One pump a turn of the loop: frames that arrived together run together, at no wait.
        if self._turn is None:
            self._turn = self._loop.call_soon(self._pump)

    def cancel(self, ticket: Ticket[WorkT, ResultT]) -> bool:
        """Withdraw a waiting ticket and settle it: True; False if it is too late."""
        if not self.queue.cancel(ticket):
            return False
        ticket.settle(ticket)
        self._note_idle()
        return True

    async def idle(self) -> None:
        """Wait until nothing waits and nothing runs."""
        await self._idle.wait()

    def close(self) -> None:
        """Stop, from another thread than the loop's: waits for running batches, whose tickets are still settled."""
        for _ in self._threads:
            self._batches.put(None)
        for thread in self._threads:
            thread.join()
        for handle in (self._turn, self._timer):
            if handle is not None:
                handle.cancel()
        self._loop.call_soon_threadsafe(self._unhook)

    def _pump(self) -> None:
        self._turn = None
        now = self._loop.time()
        for ticket in self.queue.expire(now):
            ticket.settle(ticket)
        while batch := self.queue.take(now):
            self._batches.put(batch)
        self._arm()
        self._note_idle()

    def _arm(self) -> None:
        """Have the timer go off when the rules next need the time."""
        at = self.queue.wake_at()
        if self._timer is not None:
            if self._timer.when() <= at and not self._timer.cancelled():
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._wake) if at < math.inf else None

    def _wake(self) -> None:
        self._timer = None
        self._pump()

    def _work(self, core: int | None = None) -> None:
        """A worker thread."""
        if core is not None:
            os.sched_setaffinity(0, {core})
        while (batch := self._batches.get()) is not None:
            self._run_one(batch)

    def _run_one(self, batch: list[Ticket[WorkT, ResultT]]) -> None:
        handed_over = False

        def hand_over(results: Sequence[ResultT]) -> None:
            nonlocal handed_over
            assert len(results) == len(batch), "a result for each ticket"
            handed_over = True
            self._tell(partial(self._finish, batch, results))

        try:
            self._run(batch, hand_over)
        except Exception as error:  # noqa: BLE001 - whatever it is, the batch's tickets must be settled
            self._tell(partial(self._on_error, error))
        if not handed_over:
            self._tell(partial(self._finish, batch, None))

    def _tell(self, news: Callable[[], None]) -> None:
        """From a worker: have the event loop call this."""
        self._news.append(news)
        os.eventfd_write(self._bell, 1)

    def _hear(self) -> None:
        os.eventfd_read(self._bell)
        self._news.popleft()()

    def _unhook(self) -> None:
        """After the last worker has ended."""
        self._loop.remove_reader(self._bell)
        os.close(self._bell)
        for news in self._news:
            self._loop.call_soon(news)

    def _finish(self, batch: list[Ticket[WorkT, ResultT]], results: Sequence[ResultT] | None) -> None:
        self.queue.finish(batch, self._loop.time(), results)
        if self.queue.waiting:
            self._pump()  # the next batch first, then the answers: the worker should not wait for them
        self._note_idle()
        for ticket in batch:
            ticket.settle(ticket)

    def _note_idle(self) -> None:
        if not self.queue.waiting and not self.queue.running:
            self._idle.set()
