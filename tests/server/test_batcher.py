"""The batcher on asyncio and threads."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from headwater.server.batch_queue import BatchQueue, Limits, State, Ticket
from headwater.server.batcher import Batcher

Job = Ticket[int, int]


class Worker:
    """What a batcher runs: it can be held, and it notes what it ran."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()
        self.started = threading.Semaphore(0)
        self.batches: list[list[int]] = []
        self.errors: list[BaseException] = []

    def __call__(self, batch: Sequence[Job], hand_over: Callable[[Sequence[int]], None]) -> None:
        self.batches.append([ticket.work for ticket in batch])
        self.started.release()
        assert self.free.wait(30)
        if any(ticket.work < 0 for ticket in batch):
            raise ValueError("a negative frame")
        hand_over([ticket.work * 10 for ticket in batch])
        if 99 in self.batches[-1]:
            raise ValueError("the book-keeping after the results")

    async def has_started(self) -> None:
        assert await asyncio.to_thread(self.started.acquire, timeout=30)


class Line:
    """Submits and collects."""

    def __init__(self, batcher: Batcher[int, int]) -> None:
        self.batcher = batcher
        self.settled: asyncio.Queue[Job] = asyncio.Queue()

    def submit(self, work: int, within: float = math.inf) -> Job:
        deadline = asyncio.get_running_loop().time() + within
        ticket: Job = Ticket("g", work, self.settled.put_nowait, deadline=deadline)
        self.batcher.submit(ticket)
        return ticket

    async def next(self) -> Job:
        async with asyncio.timeout(30):
            return await self.settled.get()


@asynccontextmanager
async def running(worker: Worker, **limits: float) -> AsyncIterator[Line]:
    batcher: Batcher[int, int] = Batcher(BatchQueue(Limits(**limits)), worker, worker.errors.append)  # type: ignore[arg-type]
    try:
        yield Line(batcher)
    finally:
        worker.free.set()
        await asyncio.to_thread(batcher.close)


async def test_what_arrives_in_one_turn_of_the_loop_runs_together() -> None:
    worker = Worker()
    async with running(worker) as line:
        for work in range(5):
            line.submit(work)
        results = [await line.next() for _ in range(5)]
        assert worker.batches == [[0, 1, 2, 3, 4]]
        assert [ticket.result for ticket in results] == [0, 10, 20, 30, 40]


async def test_a_worker_stays_on_the_core_that_it_is_given() -> None:
    seen = []

    def run(batch: Sequence[Job], hand_over: Callable[[Sequence[int]], None]) -> None:
        seen.append(os.sched_getaffinity(0))
        hand_over([ticket.work for ticket in batch])

    core, before = min(os.sched_getaffinity(0)), os.sched_getaffinity(0)
    batcher: Batcher[int, int] = Batcher(BatchQueue(Limits()), run, lambda _: None, (core,))
    try:
        line = Line(batcher)
        line.submit(1)
        await line.next()
    finally:
        await asyncio.to_thread(batcher.close)
    assert seen == [{core}]
    assert os.sched_getaffinity(0) == before


async def test_what_arrives_while_the_worker_is_busy_runs_as_one_batch_after_it() -> None:
    worker = Worker()
    async with running(worker) as line:
        worker.free.clear()
        line.submit(0)
        await worker.has_started()
        for work in (1, 2, 3):
            line.submit(work)
        await asyncio.sleep(0)
        worker.free.set()
        assert [(await line.next()).work for _ in range(4)] == [0, 1, 2, 3]
        assert worker.batches == [[0], [1, 2, 3]]


async def test_a_deadline_that_passes_in_the_queue_is_settled_in_time_and_never_run() -> None:
    worker = Worker()
    async with running(worker) as line:
        worker.free.clear()
        line.submit(0)
        await worker.has_started()
        line.submit(1, within=0.01)
        late = await line.next()  # while the worker is still held
        assert (late.work, late.state) == (1, State.EXPIRED)
        worker.free.set()
        await line.next()
        await line.batcher.idle()
        assert worker.batches == [[0]]


async def test_a_withdrawn_ticket_is_settled_at_once_and_never_run() -> None:
    worker = Worker()
    async with running(worker) as line:
        worker.free.clear()
        line.submit(0)
        await worker.has_started()
        ticket = line.submit(1)
        assert line.batcher.cancel(ticket)
        assert (await line.next()).state is State.CANCELLED
        worker.free.set()
        await line.next()
        await line.batcher.idle()
        assert worker.batches == [[0]]


async def test_a_batch_that_raises_fails_its_own_frames_only() -> None:
    worker = Worker()
    async with running(worker) as line:
        line.submit(-1)
        assert (await line.next()).state is State.FAILED
        assert isinstance(worker.errors[0], ValueError)
        line.submit(2)
        assert (await line.next()).result == 20


async def test_an_error_after_the_results_is_reported_and_harms_no_answer() -> None:
    worker = Worker()
    async with running(worker) as line:
        line.submit(99)
        assert (await line.next()).result == 990
        line.submit(1)
        assert (await line.next()).result == 10
        assert [str(error) for error in worker.errors] == ["the book-keeping after the results"]


async def test_one_that_cannot_be_told_of_its_answer_keeps_no_other_from_its_own() -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["exception"]))
    worker = Worker()
    async with running(worker, workers=2, max_batch=1) as line:
        worker.free.clear()
        failing: Job = Ticket("g", 0, lambda ticket: line.settled.put_nowait(ticket.no_such_thing))  # type: ignore[attr-defined]
        line.batcher.submit(failing)
        line.submit(1)
        await worker.has_started()
        await worker.has_started()
        worker.free.set()
        assert (await line.next()).work == 1
        await line.batcher.idle()
    assert [type(error) for error in complaints] == [AttributeError]


async def test_what_ends_while_it_closes_is_still_answered() -> None:
    worker = Worker()
    async with running(worker) as line:
        worker.free.clear()
        line.submit(3)
        await worker.has_started()
    assert (await line.next()).result == 30


async def test_workers_run_batches_side_by_side() -> None:
    worker = Worker()
    async with running(worker, workers=2, max_batch=1) as line:
        worker.free.clear()
        line.submit(0)
        line.submit(1)
        await worker.has_started()
        await worker.has_started()
        worker.free.set()
        assert {(await line.next()).work, (await line.next()).work} == {0, 1}


async def test_idle_waits_for_what_waits_and_what_runs() -> None:
    worker = Worker()
    async with running(worker) as line:
        await line.batcher.idle()
        worker.free.clear()
        line.submit(0)
        idle = asyncio.create_task(line.batcher.idle())
        await worker.has_started()
        assert not idle.done()
        worker.free.set()
        await line.next()
        await asyncio.wait_for(idle, 30)
