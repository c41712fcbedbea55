"""Federated learning on the device: from an offer to the reply at the server, whatever happens between.

    offer ──accepted──> courier fetches ──> the training process answers ──> courier delivers

Three tasks do it, one message each at a time, in the order of the first offers; what they know is on the disk
(state.py), so that they go on after a restart where it ended. A message that cannot be answered is refused by an
``OfferReply`` with the reason, again whenever the server offers it again. One whose lifetime is over is left alone:
nobody waits for it.

This is part of the agent: neither Flower nor torch is imported here, and nothing takes long on the event loop.
"""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import logging
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self, TypeVar

from headwater.compression.errors import HeadwaterError, LearningError, SettingsError, TransferError
from headwater.device.disk import refuses
from headwater.device.federated.budget import Budget
from headwater.device.federated.jobs import Job
from headwater.device.federated.state import LIMIT_BYTES, State
from headwater.device.federated.trainer import DiedError, Trainer
from headwater.protos import edge_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from pathlib import Path

    from headwater.device.courier import Courier
    from headwater.device.federated.jobs import Answer, Config
    from headwater.device.federated.state import Phase, Task
    from headwater.device.link import Link
    from headwater.device.settings import DeviceSettings

T = TypeVar("T")

CAPABILITY = "federated"
"""What the agent says of itself when it opens a stream."""
MOST_DEATHS = 3
"""Training processes that may end over a message before it is given up."""
LOOK_S = 5.0
"""How often battery and heat are looked at while a message is answered."""
EXPIRE_S = 600.0
"""How often messages whose lifetime is over are forgotten."""
TROUBLE_S = 5.0
"""After the disk failed, how long nothing is tried."""

_log = logging.getLogger(__name__)


@dataclass
class Counts:
    """What has been counted since the agent started."""

    offered: int = 0
    answered: int = 0
    delivered: int = 0
    failed: int = 0


class Learner:
    """``async with Learner(settings, link, courier, bundle) as learner``; used on the event loop."""

    def __init__(
        self,
        settings: DeviceSettings,
        link: Link,
        courier: Courier,
        bundle: Callable[[], Path],
        *,
        trainer: Trainer | None = None,
        budget: Budget | None = None,
    ) -> None:
        """Prepare; ``bundle`` gives the path of the bundle in use.

        Raises:
            SettingsError: what the training process needs is not installed.
        """
        assert settings.state is not None, "the settings are checked when they are made"
        require_installed(settings.train_app)
        self.counts = Counts()
        self._settings = settings
        self._link = link
        self._courier = courier
        self._bundle = bundle
        self._folder = settings.state / "learning"
        self.trainer = trainer or Trainer(
            settings.train_app,
            self._folder / "training.log",
            nice=settings.train_nice,
            seconds=settings.train_seconds,
        )
        self._budget = budget or Budget.of(settings)
        self._offers: asyncio.Queue[pb.Offer] = asyncio.Queue()
        self._there: dict[Phase, asyncio.Event] = {
            phase: asyncio.Event() for phase in ("offered", "fetched", "answered")
        }
        self._stack = AsyncExitStack()

    @classmethod
    def of(cls, settings: DeviceSettings, link: Link, courier: Courier, bundle: Callable[[], Path]) -> Learner | None:
        """That of the settings; None where they name no data to train with, or the disk takes nothing now.

        Raises as making one does.
        """
        if settings.train_data is None:
            return None
        assert settings.state is not None, "the settings are checked when they are made"
        if refuses(settings.state):
            _log.error("the disk of %s takes nothing; no rounds until the agent is started again", settings.state)
            return None
        return cls(settings, link, courier, bundle)

    async def __aenter__(self) -> Self:
        """Go on with what was not ended; raises :class:`StorageError` if the disk does not let it."""
        self._bundle()  # one that cannot be trained is told at once
        async with AsyncExitStack() as stack:
            self._disk = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="headwater-learning"))
            self._state = await self._on_disk(partial(State, self._folder))
            stack.push_async_callback(self._on_disk, self._state.close)
            stack.push_async_callback(self.trainer.close)
            stack.push_async_callback(
                _end, [asyncio.create_task(work, name="headwater-learner") for work in self._work()]
            )
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def offered(self, offer: pb.Offer) -> None:
        """Take an offer of a federated message."""
        self._offers.put_nowait(offer)

    def frames(self, busy: bool) -> None:  # noqa: FBT001 - what Answering calls
        """Training stands still while the head has a picture."""
        (self.trainer.reins.hold if busy else self.trainer.reins.release)("frames")

    # ------------------------------------------------------------ the tasks

    def _work(self) -> list[Coroutine[None, None, None]]:
        return [
            self._take_offers(),
            self._forget_now_and_then(),
            self._each("offered", self._fetch),
            self._each("fetched", self._answer),
            self._each("answered", self._hand_in),
        ]

    async def _take_offers(self) -> None:
        while True:
            await self._trying(partial(self._take_offer, await self._offers.get()))

    async def _each(self, phase: Phase, work: Callable[[Task], Awaitable[None]]) -> None:
        """Do this with every message of a phase, one after the other."""
        while True:
            self._there[phase].clear()
            await self._trying(partial(self._one, phase, work))

    async def _one(self, phase: Phase, work: Callable[[Task], Awaitable[None]]) -> None:
        task = await self._on_disk(partial(self._state.first, phase))
        if task is None:
            await self._there[phase].wait()
            return
        try:
            async with asyncio.timeout(task.expires_unix_s - time.time()):
                await work(task)
        except TimeoutError:
            await self._fail(task, f"its lifetime was over before it was {_NEXT[phase]}")

    async def _forget_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(EXPIRE_S)
            await self._trying(partial(self._on_disk, self._state.expire))

    async def _trying(self, work: Callable[[], Awaitable[object]]) -> None:
        """A disk that fails is tried again; the frames do not suffer from it."""
        try:
            await work()
        except (HeadwaterError, sqlite3.Error, OSError) as error:
            _log.error("federated learning stands still: %s", error)
            await asyncio.sleep(TROUBLE_S)

    # ------------------------------------------------------------ a message's way

    async def _take_offer(self, offer: pb.Offer) -> None:
        try:
            task = await self._on_disk(partial(self._state.offered, offer))
        except TransferError as error:
            self._say(offer.offer, str(error))
            return
        self.counts.offered += 1
        gone = task.phase == "delivered" and "it was answered, and the reply is not kept any more"
        self._say(offer.offer, task.reason if task.phase == "failed" else gone or "")
        self._wake()

    async def _fetch(self, task: Task) -> None:
        blobs = self._state.blobs
        if not blobs.has(bytes.fromhex(task.content)):
            offer = _offer(task)
            offer.content_sha256, offer.content_bytes = bytes.fromhex(task.content), task.size
            try:
                await self._courier.download(offer, blobs.folder)
            except TransferError as error:
                await self._fail(task, str(error))
                return
        await self._on_disk(partial(self._state.fetched, task.number))
        self._wake()

    async def _answer(self, task: Task) -> None:
        try:
            answer = await self._train(task)
        except DiedError as error:
            deaths = await self._on_disk(partial(self._state.died, task.number))
            _log.warning("message %d, attempt %d of %d: %s", task.number, deaths, MOST_DEATHS, error)
            if deaths >= MOST_DEATHS:
                await self._fail(task, str(error))
        except LearningError as error:
            await self._fail(task, str(error))
        else:
            await self._on_disk(partial(self._state.commit, task.number, answer))
            self.counts.answered += 1
            self._wake()

    async def _train(self, task: Task) -> Answer:
        await self._wait_for_leave()
        job = Job(
            base64.b64encode(task.envelope).decode(),
            task.content,
            await self._on_disk(self._state.contexts),
            config := await self._config(task),
            int(config["memory-bytes"]),
            str(self._state.blobs.folder),
            LIMIT_BYTES,
        )
        watch = asyncio.create_task(self._watch_surroundings(), name="headwater-surroundings")
        try:
            return await self.trainer.answer(job)
        finally:
            watch.cancel()

    async def _config(self, task: Task) -> Config:
        """What the message is answered with; decided once, since what is free may be different the next time."""
        if task.config is not None:
            return task.config
        config = self._budget.config(self._settings, self._bundle())
        await self._on_disk(partial(self._state.begun, task.number, config))
        return config

    async def _hand_in(self, task: Task) -> None:
        sha256 = bytes.fromhex(task.reply_content)
        path = self._state.blobs.path(sha256)
        try:
            await self._courier.upload(_offer(task), path, sha256, task.reply_envelope)
            self.counts.delivered += 1
        except TransferError as error:
            _log.warning("the server does not take the reply to message %d: %s", task.number, error)
        await self._on_disk(partial(self._state.delivered, task.number))

    async def _fail(self, task: Task, reason: str) -> None:
        _log.warning("message %d has no answer: %s", task.number, reason)
        failed = await self._on_disk(partial(self._state.failed, task.number, reason))
        self.counts.failed += 1
        self._say(failed.offer, reason)

    # ------------------------------------------------------------ mains and cold

    async def _wait_for_leave(self) -> None:
        waiting = False
        while why := self._budget.why_not(waiting=waiting):
            if not waiting:
                _log.info("training waits: %s", why)
            waiting = True
            await asyncio.sleep(LOOK_S)

    async def _watch_surroundings(self) -> None:
        """Hold the process while battery or heat ask for it."""
        waiting = False
        while True:
            waiting = bool(self._budget.why_not(waiting=waiting))
            (self.trainer.reins.hold if waiting else self.trainer.reins.release)("surroundings")
            await asyncio.sleep(LOOK_S)

    # ------------------------------------------------------------ odds and ends

    def _say(self, offer: int, reason: str) -> None:
        """Accept an offer, or refuse it with a reason."""
        reply = pb.OfferReply(offer=offer, accepted=not reason, reason=reason)
        self._link.control(pb.DeviceMessage(offer_reply=reply))

    def _wake(self) -> None:
        for event in self._there.values():
            event.set()

    async def _on_disk(self, work: Callable[[], T]) -> T:
        """Have the disk's thread do it, to the end even if this is cancelled."""
        job = asyncio.get_running_loop().run_in_executor(self._disk, work)
        try:
            return await asyncio.shield(job)
        finally:
            await asyncio.wait([job])


_NEXT: dict[Phase, str] = {"offered": "here", "fetched": "answered", "answered": "handed in"}


def require_installed(app: str) -> None:
    """Raise :class:`SettingsError` where the training process could not even begin; imports nothing."""
    package = app.partition(":")[0].partition(".")[0]
    for name in ("flwr", package):
        if importlib.util.find_spec(name) is None:
            extra = (
                "; pip install 'headwater[federated]'" if name == "flwr" else "; is it installed, or train_app wrong?"
            )
            raise SettingsError(f"federated learning needs the package {name}, which is not here{extra}")


def _offer(task: Task) -> pb.Offer:
    return pb.Offer(offer=task.offer, kind=pb.OFFER_KIND_FEDERATED_MESSAGE)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
