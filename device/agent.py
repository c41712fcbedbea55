"""The agent: picture -> controller -> head -> frame -> link -> record.

    async with Agent("bundles/solar", "edge.local:50051") as agent:
        answer = await agent.infer("cell.png")
        print(answer["defect"].label, answer["defect"].score, answer.bytes, answer.latency_ms)

Here is what surrounds the frames: opening and closing, feeds, records and reports; `answering.py` has one picture's
way. Pictures are coded one after the other, each in the mode that the controller picks at that moment, and up to a
window of them are unanswered at a time; none is taken from a feed before the head is free, for it would grow old.
With a deadline and a bundle whose local exit answers what is asked for, each has its answer by then, the server's or
the device's own, whether there is a server or not.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from headwater.compression.bundle import Bundle
from headwater.compression.errors import (
    DeadlineError,
    FrameError,
    HeadwaterError,
    LinkError,
    SettingsError,
    UnknownBundleError,
)
from headwater.device.access.identity import Identities
from headwater.device.access.renewal import Renewal
from headwater.device.answering import Answering
from headwater.device.answers import images
from headwater.device.courier import Courier
from headwater.device.federated import learner as learning
from headwater.device.federated.learner import Learner
from headwater.device.feed import Picture, decode
from headwater.device.images import ImageFolder
from headwater.device.keeping import Keeping
from headwater.device.link import Link
from headwater.device.link_options import LinkOptions
from headwater.device.record import FrameRecord, RecordFile
from headwater.device.report import Reporter
from headwater.device.rollout.swapping import CAPABILITY, Swapping, open_store, start
from headwater.device.settings import DeviceSettings
from headwater.device.spool import Spool
from headwater.device.tasks import check, known, lacking
from headwater.protos import edge_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from headwater.compression.manifest import Manifest
    from headwater.device.channel import Opener
    from headwater.device.control.controller import Controller
    from headwater.device.loaded import Loaded
    from headwater.device.outcome import Made
    from headwater.device.window import Reply

T = TypeVar("T")

CONNECT_TIMEOUT_S = 10.0

_ERRORS: dict[str, type[HeadwaterError]] = {
    "invalid_frame": FrameError,
    "unknown_bundle": UnknownBundleError,
    "expired": DeadlineError,
    "unknown_task": SettingsError,
}


class Agent:
    """The device end. Open it with ``async with``; everything then runs on that event loop."""

    def __init__(
        self,
        bundle: Bundle | Path | str,
        server: str | Sequence[str] | None = None,
        settings: DeviceSettings | None = None,
        *,
        controller: Controller | None = None,
        connect_timeout_s: float | None = CONNECT_TIMEOUT_S,
        channel: Opener | None = None,
    ) -> None:
        """Prepare an agent; entering it loads the bundle and connects.

        Args:
            bundle: a loaded bundle, or the path of one.
            server: host:port, one or several; None for the settings' own.
            settings: threads, window, tasks, width, gain, deadline and so on; None for the defaults.
            controller: picks modes; None for a fixed one where the settings name width or gain, else the rule.
            connect_timeout_s: how long entering waits for the server; None does not wait at all, so that a device with
                a deadline answers from its first picture on.
            channel: opens a gRPC channel to an address; None for one that shows the certificate had by enrolling.
        """
        self.settings = settings or DeviceSettings()
        self.servers = ((server,) if isinstance(server, str) else tuple(server or ())) or self.settings.server
        self.controller = self._given = controller
        self._bundle = bundle
        self._connect_timeout_s = connect_timeout_s
        self._identities = Identities.under(self.settings.state)
        self._channel = channel or self._identities.channel
        self.spool: Spool | None = None
        """Frames that are kept until a server stores them, where the settings name a file for them."""
        self.learner: Learner | None = None
        """The device's part in federated rounds, where the settings name data for it."""
        self._keeping: Keeping | None = None
        self._stack = AsyncExitStack()
        self._reporter = Reporter()

    async def __aenter__(self) -> Self:
        """Load the bundle and connect.

        Raises :class:`BundleError`, :class:`SettingsError` for a task that bundle and server lack, and
        :class:`LinkError` when the server does not answer in time or refuses.
        """
        async with AsyncExitStack() as stack:
            self._worker = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="headwater-head"))
            self._store = await self._in_worker(partial(open_store, self._bundle, self.settings))
            if self._store is not None:
                stack.callback(self._store.close)
            loaded = await self._in_worker(partial(start, self._store, self._bundle, self.settings, self._given))
            self.controller = loaded.controller
            records = self.settings.records
            self._records = stack.enter_context(RecordFile(records)) if records is not None else None
            folder = self.settings.save_images
            self._images = None if folder is None else await self._in_worker(partial(ImageFolder, folder))
            self.spool = await self._in_worker(partial(Spool.open, self.settings))
            if self.spool is not None:
                stack.enter_context(self.spool)
            options = self._link_options(loaded)
            link = Link(
                *(self.servers, options),
                channel=self._channel,
                spool=self.spool,
                on_late=self._late,
                on_offer=self._offered,
                on_unknown=self._unknown,
            )
            self._courier = Courier(link)
            self._swapping = self._make_swapping(link)
            self._answering = Answering(loaded, link, self._worker, self.settings, self._distrust)
            self.learner = Learner.of(self.settings, link, self._courier, self._bundle_to_train)
            if self.learner is not None:  # before the link, which may get an offer at once
                self._answering.on_busy = self.learner.frames
                await stack.enter_async_context(self.learner)
            self.link = await stack.enter_async_context(link)
            stack.callback(self._report)  # what was done since the last one, before the link says goodbye
            self._reporter.use(loaded.bundle_id)
            if self._swapping is not None:
                self._swapping.begin(loaded)
                stack.push_async_callback(self._swapping.close)
            if self.spool is not None and self.settings.keep != "none":
                everything, session = self.settings.keep == "all", self.link.session
                keeping = Keeping(self.spool, session, self._worker, answered=everything)
                self._keeping = await stack.enter_async_context(keeping)
            if self._connect_timeout_s is not None:
                await self.link.wait_connected(self._connect_timeout_s)
                await self._agree_on_tasks()
            beside = [self._report_now_and_then(), Renewal(self._identities, link).run()]
            beside += [] if self._records is None else [self._records.retry()]
            for each in beside:
                stack.push_async_callback(_cancel, asyncio.create_task(each, name="headwater-beside-frames"))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def manifest(self) -> Manifest:
        """Of the bundle in use."""
        return self._answering.loaded.manifest

    @property
    def pending(self) -> int:
        """Pictures that have been taken and have no record yet."""
        return self._answering.pending

    async def turn(self) -> None:
        """Return when the head's thread has done what was handed to it before."""
        await self._in_worker(lambda: None)

    async def infer(
        self,
        image: Image.Image | NDArray[np.uint8] | bytes | Path | str,
        *,
        name: str = "",
        truth: Mapping[str, str] | None = None,
    ) -> FrameRecord:
        """Answer one picture.

        Args:
            image: a Pillow image, an array [H, W] or [H, W, 3] (RGB), an encoded picture, or the path of one.
            name: for the record.
            truth: the right label of each task, for the record.

        Raises:
            DataError: the picture cannot be read.
            DeadlineError: the settings' deadline passed, and the device could not answer itself.
            LinkError: the link was closed, or the server refused the device; with its subclasses.
            HeadwaterError: what else the server said to this frame.
        """
        await self._agree_on_tasks()
        taken_s = time.monotonic()
        picture, found = await self._in_worker(partial(decode, image))
        record, made = await self._answer(Picture(name or found, picture, truth or {}, taken_s))
        if self._keeping is not None:
            self._keeping.keep(made, record)
        if record.status != "ok":
            raise _ERRORS.get(record.status, LinkError)(f"no answer ({record.status}): {record.detail}")
        return record

    async def run(
        self,
        pictures: AsyncIterable[Picture],
        on_answer: Callable[[FrameRecord], None] = lambda _: None,
        count: int | None = None,
    ) -> None:
        """Answer every picture of a feed, up to ``count``; returns when all have been answered or given up.

        ``on_answer`` gets each record as it is done, in any order. An error of the feed is raised when what was taken
        before it has been answered, one of the link at once. :class:`SettingsError`: neither the bundle nor the server
        has a task that is asked for; where the bundle lacks one, this waits for the server first.
        """
        await self._agree_on_tasks()
        failed: HeadwaterError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                try:
                    await self._take_all(group, pictures, on_answer, count)
                except HeadwaterError as error:
                    failed = error
        except* HeadwaterError as errors:
            failed = _first(errors)
        if failed is not None:
            raise failed

    async def _take_all(
        self,
        group: asyncio.TaskGroup,
        pictures: AsyncIterable[Picture],
        on_answer: Callable[[FrameRecord], None],
        count: int | None,
    ) -> None:
        slots = asyncio.Semaphore(self.settings.window)
        iterator = aiter(pictures)
        taken = 0
        while taken != count:
            await slots.acquire()  # before the picture is taken, so that a live source drops old ones meanwhile
            picture = await anext(iterator, None)
            if picture is None:
                return
            made = asyncio.Event()
            group.create_task(self._answer_and_tell(picture, on_answer, slots, made))
            taken += 1
            await made.wait()  # one that waits for the head here would be old when its turn comes

    # ------------------------------------------------------------ one frame

    async def _answer_and_tell(
        self,
        picture: Picture,
        on_answer: Callable[[FrameRecord], None],
        slots: asyncio.Semaphore,
        made: asyncio.Event,
    ) -> None:
        try:
            record, done = await self._answer(picture, made.set)
            on_answer(record)
            if self._keeping is not None:
                # A disk that is too slow holds up new pictures, and no answer; who stops here loses nothing.
                await asyncio.shield(self._keeping.keep(done, record))
        finally:
            slots.release()

    async def _answer(self, picture: Picture, on_made: Callable[[], None] = lambda: None) -> tuple[FrameRecord, Made]:
        record, reply, made = await self._answering.answer(picture, on_made)
        if reply is not None and record.source == "edge":
            record = await self._with_images(record, reply)
        if self._records is not None:
            self._records.write(record)
        status = None if reply is None else reply.answer.status
        self._reporter.add(record, made, status)
        if self._swapping is not None:
            self._swapping.saw(made, status)
        return record, made

    def _late(self, reply: Reply) -> None:
        self._answering.late(reply)

    async def _with_images(self, record: FrameRecord, reply: Reply) -> FrameRecord:
        """Save the pictures of an answer, and say where they are."""
        if self._images is None:
            return record
        try:
            pictures = images(reply.answer, known(self.manifest, self.link.welcome.tasks))
        except LinkError as error:
            return replace(record, status="internal", source="none", detail=str(error), results={})
        save = partial(self._images.save, record.name, record.taken, record.sequence, pictures)
        return replace(record, images=await self._in_worker(save)) if pictures else record

    # ------------------------------------------------------------ beside the frames

    async def _agree_on_tasks(self) -> None:
        """See to it that somebody has what is asked for; what the bundle lacks, a server may have."""
        if lacking(self.manifest, self.settings.tasks):
            await self.link.wait_connected()
            check(replace(self.settings, server=self.servers), self.manifest, self.link.welcome.tasks)

    def _link_options(self, loaded: Loaded) -> LinkOptions:
        # With a deadline and an exit every picture has an answer with no server at all.
        answering_itself = self.settings.deadline_ms is not None and loaded.maker.local_exit is not None
        return LinkOptions(
            self.settings.device_name,
            loaded.bundle_id,
            metadata.version("headwater"),
            window=self.settings.window,
            longest_pause_s=self.settings.retry_s,
            capabilities=self._capabilities(),
            persistent=answering_itself,
            name_at=self._identities.name_at,
        )

    def _capabilities(self) -> tuple[str, ...]:
        able = {CAPABILITY: self._store is not None, learning.CAPABILITY: self.settings.train_data is not None}
        return tuple(name for name, has in able.items() if has)

    async def _report_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(self.settings.report_s)
            self._report()
            if self._swapping is not None:
                self._swapping.remind()

    def _report(self) -> None:
        self.link.control(pb.DeviceMessage(report=self._reporter.report()))

    # ------------------------------------------------------------ bundles

    def _make_swapping(self, link: Link) -> Swapping | None:
        if self._store is None:
            return None

        def fetch(offer: pb.Offer, folder: Path) -> Awaitable[Path]:
            return self._courier.download(offer, folder)

        return Swapping(self._store, self.settings, self._given, fetch, self._use, link.control)

    def _use(self, loaded: Loaded) -> None:
        """From the next picture on, use this bundle."""
        self._answering.loaded, self.controller = loaded, loaded.controller
        self._reporter.use(loaded.bundle_id)
        self.link.use(loaded.bundle_id)

    def _offered(self, offer: pb.Offer) -> None:
        if offer.kind == pb.OFFER_KIND_BUNDLE and self._swapping is not None:
            self._swapping.offered(offer)
        elif offer.kind == pb.OFFER_KIND_FEDERATED_MESSAGE and self.learner is not None:
            self.learner.offered(offer)
        else:
            self.link.refuse(offer)

    def _bundle_to_train(self) -> Path:
        """The bundle in use if its weights are here, which a server may leave out; else the one that was given."""
        if self._store is not None:
            path = self._store.folder / self._answering.loaded.bundle_id.hex()
            if (path / "weights.safetensors").is_file():
                return path
        if isinstance(self._bundle, Bundle):
            raise SettingsError("training reads the bundle in a process of its own; give the agent its path")
        return Path(self._bundle).absolute()

    async def _unknown(self, why: str) -> bool:
        return await self._distrust(self._answering.loaded, why)

    async def _distrust(self, loaded: Loaded, why: str) -> bool:
        return self._swapping is not None and await self._swapping.distrust(loaded, why)

    async def _in_worker(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)


def _first(errors: BaseExceptionGroup[HeadwaterError]) -> HeadwaterError:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
