"""From an offered release to a bundle in use, and back if need be, while pictures are answered.

    Offer ── judged ──> fetched ── unpacked, checked ──> loaded, golden input ── switched on disk ──> used, on trial
               └─ refused    └───────── refused ───────────────┘                       ├─> proved: answers came
                                                                                       └─> left: the one before is used

Fetching, unpacking and loading happen beside the pictures, on a thread that gives way to them; the swap itself is an
assignment between two of them. The bundle before is loaded again where it is gone back to, at once. Every step is told
to the server by a notice; one that is lost with a connection is made good by the next hello, which says what is in use.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from headwater.compression import patch
from headwater.compression.background import background
from headwater.compression.bundle import Bundle
from headwater.compression.errors import BundleError, HeadwaterError, RolloutError, SignatureError, StorageError
from headwater.compression.signature import load_public
from headwater.device.disk import refuses
from headwater.device.loaded import Loaded, load
from headwater.device.rollout import golden
from headwater.device.rollout.bundles import STATE, BundleStore
from headwater.protos import edge_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from headwater.compression.release import Release
    from headwater.device.control.controller import Controller
    from headwater.device.outcome import Made
    from headwater.device.settings import DeviceSettings

    Fetch = Callable[[pb.Offer, Path], Awaitable[Path]]

CAPABILITY = "bundles"
"""What the agent says of itself when it opens a stream."""
PROOF = 20
"""Pictures answered before a bundle has proved itself."""
MOST_FAULTS = 5
"""Frames that the server will not have before that, if they are more than those it has answered."""
FAULTS = frozenset({pb.STATUS_INVALID_FRAME, pb.STATUS_UNKNOWN_TASK, pb.STATUS_INTERNAL})

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)


class Swapping:
    """Follows releases; used on the event loop. :meth:`close` it before the store."""

    def __init__(
        self,
        store: BundleStore,
        settings: DeviceSettings,
        controller: Controller | None,
        fetch: Fetch,
        use: Callable[[Loaded], None],
        tell: Callable[[pb.DeviceMessage], None],
    ) -> None:
        """Prepare to follow.

        Args:
            store: the bundles on the disk.
            settings: of the agent.
            controller: the caller's, for all bundles; None for one made for each.
            fetch: downloads what was offered into a folder.
            use: takes the bundle for the pictures to come.
            tell: writes to the server.
        """
        self.store = store
        self._settings = settings
        self._controller = controller
        self._fetch = fetch
        self._use = use
        self._tell = tell
        self._background = background("headwater-swap", threads=settings.threads)
        self._busy = asyncio.Lock()
        self._offer: pb.Offer | None = None
        self._following: asyncio.Task[None] | None = None
        self._current: Loaded | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._answered = self._faults = 0
        self._reminded = -1

    def begin(self, loaded: Loaded) -> None:
        """Say what is in use at the start."""
        self._current, self._answered, self._faults = loaded, 0, 0

    async def close(self) -> None:
        """Stop; what was half fetched stays on the disk."""
        tasks = [task for task in (self._following, *self._tasks) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with self._busy:  # a swap that was begun is ended, on the disk and in use
            pass
        self._background.shutdown(wait=False)

    # ------------------------------------------------------------ forward

    def offered(self, offer: pb.Offer) -> None:
        """Take the offer of a bundle; a newer one ends what is being done about the one before."""
        if self._following is not None and not self._following.done():
            if self._offer is not None and self._offer.offer == offer.offer:
                return
            self._following.cancel()
        self._offer = offer
        self._following = asyncio.create_task(self._follow(offer, self._following), name="headwater-swap")

    async def _follow(self, offer: pb.Offer, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.gather(before, return_exceptions=True)
        try:
            async with self._busy:
                release = await self._in_background(self.store.judge, offer.envelope)
            _check_size(offer, release)
        except HeadwaterError as error:
            self._reply(offer, reason=str(error))
            self._notice(offer.bundle_id, pb.BUNDLE_STATE_REFUSED, str(error))
            return
        self._reply(offer)
        try:
            await self._swap(offer, release)
        except (HeadwaterError, OSError) as error:
            _log.warning("the bundle %s was not taken: %s", release.bundle_id[:5].hex(), error)
            self._notice(release.bundle_id, pb.BUNDLE_STATE_REFUSED, str(error))

    async def _swap(self, offer: pb.Offer, release: Release) -> None:
        if self.store.follows(release):
            async with self._busy:
                await self._in_background(self.store.stay, release)
        else:
            bundle = await self._bundle(offer, release)
            self._notice(release.bundle_id, pb.BUNDLE_STATE_FETCHED)
            # What was begun here is ended: a cancellation between the disk and the pictures would part them.
            await asyncio.shield(self._switch(release, bundle))
        self._notice(release.bundle_id, pb.BUNDLE_STATE_IN_USE)

    async def _bundle(self, offer: pb.Offer, release: Release) -> Bundle:
        """The bundle of a release, from the disk or the server, checked but for what it computes."""
        if self.store.has(release.bundle_id):
            return await self._in_background(self._from_disk, release)
        folder = self.store.folder.with_name("fetching")
        await self._in_background(_clear, folder, offer.content_sha256.hex())
        left_s = release.expires - self.store.trusting.now(release.issued)
        try:
            async with asyncio.timeout(left_s):
                path = await self._fetch(offer, folder)
        except TimeoutError:
            raise RolloutError(f"release {release.serial} ended before its bundle had come") from None
        return await self._in_background(self._from_download, release, path)

    def _from_disk(self, release: Release) -> Bundle:
        return self.store.trusted(release, self.store.get(release.bundle_id))

    def _from_download(self, release: Release, path: Path) -> Bundle:
        try:
            return self.store.unpack(release, path.read_bytes())
        except (SignatureError, RolloutError) as error:
            self.store.refuse(release, str(error))
            raise
        finally:
            path.unlink(missing_ok=True)

    async def _switch(self, release: Release, bundle: Bundle) -> None:
        async with self._busy:
            loaded = await self._in_background(self._checked, release, bundle)
            await self._in_background(self.store.switch, release, bundle)
            self._take(loaded)

    def _load(self, bundle: Bundle) -> Loaded:
        return load(bundle, self._settings, self._controller)

    def _checked(self, release: Release, bundle: Bundle) -> Loaded:
        """Load a bundle, and see that it computes what it should; what fails here would fail again."""
        try:
            loaded = self._load(bundle)
            if bundle.id != self.store.factory.id:
                golden.check(bundle, loaded.maker)
        except HeadwaterError as error:
            self.store.refuse(release, str(error))
            raise
        # onnxruntime's exceptions derive from Exception only, a class for each of its status codes.
        except Exception as error:
            self.store.refuse(release, f"it does not run on this device: {error}")
            raise BundleError(f"the bundle does not run on this device: {error}") from error
        return loaded

    def _take(self, loaded: Loaded) -> None:
        self.begin(loaded)
        self._use(loaded)
        _log.info("bundle %s is in use", loaded.bundle_id[:5].hex())

    def remind(self) -> None:
        """Say, once a release, that no newer one came in its time: somebody may keep them from this device."""
        if self.store.state.serial != self._reminded and (why := self.store.overdue):
            self._reminded = self.store.state.serial
            _log.warning("%s", why)

    # ------------------------------------------------------------ on trial, and back

    def saw(self, made: Made, status: pb.Status | None) -> None:
        """Count a picture that is done with; ``status`` is the server's, None where it was not asked."""
        if made.loaded is not self._current or not self.store.state.trial:
            return
        if status in FAULTS:
            self._faults += 1
        elif status in {None, pb.STATUS_OK}:
            self._answered += 1
        if self._answered == PROOF:
            self._beside(self._prove())
        elif self._faults >= MOST_FAULTS and self._faults > self._answered:
            assert status is not None
            why = f"the server answered {self._faults} of its first frames with {pb.Status.Name(status)}"
            self._beside(self._leave(made.loaded, why))

    async def distrust(self, loaded: Loaded, why: str) -> bool:
        """Leave a bundle that does not run, or that the server will not have; True once another one is in use."""
        async with self._busy:
            if loaded is not self._current:
                return True
            if self.store.alone:
                return False
            left = loaded.bundle_id
            bundle = await asyncio.to_thread(self.store.roll_back, why)
            self._take(await asyncio.to_thread(self._load, bundle))
            self._notice(left, pb.BUNDLE_STATE_ROLLED_BACK, why)
            return True

    async def _leave(self, loaded: Loaded, why: str) -> None:
        await self.distrust(loaded, why)

    async def _prove(self) -> None:
        async with self._busy:
            await self._in_background(self.store.confirm)

    def _beside(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the bundle could not be proved or left: %s", error)

    async def _in_background(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Beside the pictures, which go first."""
        call = partial(work, *arguments, **named)
        return await asyncio.get_running_loop().run_in_executor(self._background, call)

    # ------------------------------------------------------------ words

    def _reply(self, offer: pb.Offer, reason: str = "") -> None:
        self._tell(pb.DeviceMessage(offer_reply=pb.OfferReply(offer=offer.offer, accepted=not reason, reason=reason)))

    def _notice(self, bundle_id: bytes, state: pb.BundleState, detail: str = "") -> None:
        self._tell(pb.DeviceMessage(bundle_notice=pb.BundleNotice(bundle_id=bundle_id, state=state, detail=detail)))


def _check_size(offer: pb.Offer, release: Release) -> None:
    """Refuse to fetch more than the bundle has, whatever the server says; raises :class:`RolloutError`."""
    most = patch.most_bytes(release.size)
    if offer.content_bytes > most:
        raise RolloutError(
            f"{offer.content_bytes} bytes are offered for a bundle of {release.size}; at most {most} are fetched"
        )


def _clear(folder: Path, wanted: str) -> None:
    """Delete what was half fetched of bundles that were offered before."""
    for path in folder.glob("*"):
        if path.stem != wanted:
            path.unlink(missing_ok=True)


# ---------------------------------------------------------------- at the start


def open_store(given: Bundle | Path | str, settings: DeviceSettings) -> BundleStore | None:
    """The bundles on the disk, where the settings let newer ones in; None also where a full disk never held any.

    Raises :class:`StorageError` and others.
    """
    if settings.trusted_key is None:
        return None
    assert settings.state is not None, "the settings are checked when they are made"
    factory = given if isinstance(given, Bundle) else Bundle.load(given, device=True)
    folder = settings.state / "bundles"
    try:
        return BundleStore.open(folder, load_public(settings.trusted_key), factory)
    except StorageError as error:
        if (folder / STATE).exists() or not refuses(folder):
            raise
        _log.error("%s; no newer bundle is taken until the agent is started again", error)
        return None


def start(
    store: BundleStore | None, given: Bundle | Path | str, settings: DeviceSettings, controller: Controller | None
) -> Loaded:
    """The bundle that the agent begins with; one that was released and does not load any more is left."""
    if store is None:
        return load(given, settings, controller)
    try:
        return load(store.begin(), settings, controller)
    except HeadwaterError as error:
        if store.alone:
            raise
        return load(store.roll_back(f"it cannot be loaded any more: {error}"), settings, controller)
