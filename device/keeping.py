"""Which frames are put into the spool, after their answer has been told.

It takes two threads that exist anyway or cost little: what is not coded yet is coded on the head's, and the disk, which
may take long to say that a frame is safe, has one of its own, so that no picture waits for it.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Self

from headwater.device.kept import KeptFrame, answer_json

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from headwater.device.head import Coded
    from headwater.device.outcome import Made
    from headwater.device.record import FrameRecord
    from headwater.device.spool import Spool


class Keeping:
    """Keeps frames in a spool; ``async with Keeping(...) as keeping: keeping.keep(made, record)``."""

    def __init__(self, spool: Spool, session: int, worker: Executor, *, answered: bool) -> None:
        """Prepare to keep frames.

        Args:
            spool: where to.
            session: the link's.
            worker: the head's thread.
            answered: keep also what a server answered.
        """
        self._spool = spool
        self._session = session
        self._worker = worker
        self._answered = answered
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="headwater-disk")
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Wait until all is on disk."""
        await asyncio.gather(*self._tasks)
        self._disk.shutdown()

    def keep(self, made: Made, record: FrameRecord) -> asyncio.Task[None]:
        """Keep a frame that is done with, if it is one of those that are kept and the device looked at it at all.

        That goes on to its end whether the task is waited for or not; leaving the block waits for all.
        """
        task = asyncio.create_task(self._keep(made, record), name="headwater-keep")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _keep(self, made: Made, record: FrameRecord) -> None:
        if record.source == "edge" and not self._answered:
            return
        if made.seen is None and made.whole is None:
            return
        loop = asyncio.get_running_loop()
        coded = made.coded
        if coded is None:
            coded = await loop.run_in_executor(self._worker, partial(self._code, made))
        frame = KeptFrame(
            session=self._session,
            sequence=record.sequence,
            captured_unix_ms=int(made.taken.timestamp() * 1e3),
            bundle_id=made.loaded.bundle_id,
            data=made.loaded.maker.self_contained(coded),
            local_answer=answer_json(made.own_results),
            name=record.name,
        )
        await loop.run_in_executor(self._disk, self._spool.keep, frame)

    @staticmethod
    def _code(made: Made) -> Coded:
        maker, mode = made.loaded.maker, made.mode.index
        if made.seen is None:
            return maker.make(made.picture.image, mode)
        return maker.code(made.seen, mode, made.decision.groups)
