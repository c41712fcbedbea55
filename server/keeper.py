"""Between the streams and the archive: kept frames are stored, acknowledged, and answered when nothing else is to do.

    take() ──> pending ──one transaction for all that came meanwhile──> KeptAck to each device
                                  │
        the archive's waiting frames ──as soon as no frame of a device waits or runs──> tails ──> their answers

The disk is worked on in one thread of its own; nothing on the event loop waits for it. What is pending is bounded, and
beyond that refused; so is everything while the disk takes nothing. A refused frame stays on its device.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from headwater.compression.errors import StorageError
from headwater.protos import edge_pb2 as pb
from headwater.server.admission import Refusal, Wish
from headwater.server.archive import Answered, Archive, Waiting
from headwater.server.session import settled_answer

if TYPE_CHECKING:
    from headwater.server.admission import Admission
    from headwater.server.archive import Status
    from headwater.server.engine import InferenceTicket
    from headwater.server.metrics import Metrics
    from headwater.server.registry import Served
    from headwater.server.session import Outbox

T = TypeVar("T")

ID_BYTES = 16
MOST_PENDING, MOST_PENDING_BYTES = 1024, 64 << 20
FULL_MS, BROKEN_MS = 1000, 30_000
"""When to come again: after too much at once, and after the disk took nothing."""
TOGETHER = 8
"""Kept frames that are answered in one batch: a device's frame that comes meanwhile waits no longer than for those."""
_FINAL: dict[pb.Status, Status] = {
    pb.STATUS_OK: "ok",
    pb.STATUS_UNKNOWN_BUNDLE: "unknown_bundle",
    pb.STATUS_INVALID_FRAME: "invalid_frame",
    pb.STATUS_INTERNAL: "internal",
}
"""Everything else means later."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Delivery:
    device: str
    kept: pb.KeptFrame
    outbox: Outbox


class Keeper:
    """Owns the archive; used on the event loop."""

    def __init__(self, archive: Archive, admission: Admission, metrics: Metrics) -> None:
        self._archive = archive
        self._admission = admission
        self._metrics = metrics
        self._pending: list[_Delivery] = []
        self._pending_bytes = 0
        self._some = asyncio.Event()
        self._unanswered = asyncio.Event()
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="archive")
        self._tasks: list[asyncio.Task[None]] = []
        self._broken = ""

    async def start(self) -> None:
        """Begin to store and to answer, with what an earlier run has left."""
        await self.bundles_changed()
        self._tasks = [asyncio.create_task(self._store_all()), asyncio.create_task(self._answer_all())]
        for task in self._tasks:
            task.add_done_callback(_log_failure)

    async def stop(self) -> None:
        """Stop answering, store what is pending, and close the archive; more than once is as good as once."""
        if not self._tasks:
            return
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._store()
        await self._on_disk(self._archive.close)
        self._disk.shutdown()

    async def bundles_changed(self) -> None:
        """Answer what waited for a bundle that is served now."""
        served = self._admission.registry.served
        ids = {bundle_id for one in served for bundle_id in (one.id, *one.answers_for)}
        await self._on_disk(partial(self._archive.answer_again, ids))
        self._unanswered.set()

    # ------------------------------------------------------------ storing

    def take(self, device: str, kept: pb.KeptFrame, outbox: Outbox) -> None:
        """Store a frame, and say so on this stream when it is done; raises :class:`Refusal` if it is none."""
        _check(kept)
        size = kept.ByteSize()
        if len(self._pending) >= MOST_PENDING or self._pending_bytes + size > MOST_PENDING_BYTES:
            self._refuse([kept.id], outbox, "too many kept frames come at a time", FULL_MS)
            return
        self._pending.append(_Delivery(device, kept, outbox))
        self._pending_bytes += size
        self._some.set()

    async def _store_all(self) -> None:
        while True:
            await self._some.wait()
            await self._store()

    async def _store(self) -> None:
        """Store all that is pending in one transaction, then acknowledge it."""
        self._some.clear()
        batch, self._pending, self._pending_bytes = self._pending, [], 0
        if not batch:
            return
        frames = [(one.device, one.kept) for one in batch]
        try:
            new = await asyncio.shield(self._on_disk(partial(self._archive.store, frames)))
        except StorageError as error:
            self._complain(str(error))
            for outbox, ids in _by_outbox(batch):
                self._refuse(ids, outbox, str(error), BROKEN_MS)
            return
        self._broken = ""
        self._metrics.count_kept("stored", new)
        self._metrics.count_kept("repeated", len(batch) - new)
        for outbox, ids in _by_outbox(batch):
            outbox.put(pb.ServerMessage(kept_ack=pb.KeptAck(stored=ids)))
        self._unanswered.set()

    def _refuse(self, ids: Sequence[bytes], outbox: Outbox, why: str, retry_after_ms: int) -> None:
        self._metrics.count_kept("refused", len(ids))
        outbox.put(pb.ServerMessage(kept_ack=pb.KeptAck(refused=ids, retry_after_ms=retry_after_ms, detail=why)))

    def _complain(self, why: str) -> None:
        if why != self._broken:  # once, not for each frame
            _log.error("the archive cannot be used", extra={"why": why})
            self._broken = why

    # ------------------------------------------------------------ answering

    async def _answer_all(self) -> None:
        while True:
            await self._unanswered.wait()
            self._unanswered.clear()
            try:
                while frames := await self._on_disk(partial(self._archive.waiting, TOGETHER)):
                    await self._admission.batcher.idle()
                    answers = await asyncio.gather(*map(self._answer, frames))
                    done = [one for one in answers if one is not None]
                    await self._on_disk(partial(self._archive.answer, done))
                    if len(done) < len(answers):
                        await asyncio.sleep(FULL_MS / 1e3)  # the queue is full again, or the server is stopping
            except StorageError as error:
                self._complain(str(error))
                await asyncio.sleep(BROKEN_MS / 1e3)
                self._unanswered.set()

    async def _answer(self, waiting: Waiting) -> Answered | None:
        """Have a frame answered; None if it is to be tried later."""
        settled: asyncio.Future[InferenceTicket] = asyncio.get_running_loop().create_future()
        try:
            ticket = self._admission.admit_file(waiting.frame, Wish(partial(_settle, settled)))
        except Refusal as why:
            status, detail, answer = why.status, str(why), ""
        else:
            message = settled_answer(await settled).answer
            status, detail, answer = message.status, message.detail, _plain(message, ticket.work.served)
        if status not in _FINAL:
            return None
        self._metrics.count_kept_answer(status)
        return Answered(waiting.number, _FINAL[status], detail, answer)

    async def _on_disk(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, work)


def _settle(settled: asyncio.Future[InferenceTicket], ticket: InferenceTicket) -> None:
    if not settled.done():  # else the server is stopping
        settled.set_result(ticket)


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.error("kept frames are stored no more", exc_info=task.exception())


def _check(kept: pb.KeptFrame) -> None:
    """Refuse what no agent of headwater sends; raises :class:`Refusal`."""
    largest = max(kept.sequence, kept.captured_unix_ms)
    if len(kept.id) != ID_BYTES or len(kept.bundle_id) != 32 or not kept.data or largest >= 1 << 63:
        raise Refusal(
            pb.STATUS_INVALID_FRAME,
            f"a kept frame has an id of {len(kept.id)} bytes, a bundle's id of {len(kept.bundle_id)} and "
            f"{len(kept.data)} bytes of data; want {ID_BYTES}, 32 and at least one, and numbers below 2^63",
        )


def _by_outbox(batch: Sequence[_Delivery]) -> list[tuple[Outbox, list[bytes]]]:
    ids: defaultdict[int, list[bytes]] = defaultdict(list)
    outboxes = {id(one.outbox): one.outbox for one in batch}
    for one in batch:
        ids[id(one.outbox)].append(one.kept.id)
    return [(outbox, ids[key]) for key, outbox in outboxes.items()]


def _plain(answer: pb.Answer, served: Served) -> str:
    """The results as JSON, task -> label -> probability."""
    labels = {task.name: task.labels for task in served.tasks}
    plain = {
        one.task: {label: round(score, 4) for label, score in zip(labels[one.task], one.scores, strict=True)}
        for one in answer.results
    }
    return json.dumps(plain, separators=(",", ":"), ensure_ascii=False) if plain else ""
