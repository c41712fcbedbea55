"""The roll-out in the serving process: serves what was released, offers it to the devices, and goes on or back by them.

    publish, rollback ──> versions.py ──┐              ┌──> registry: the new bundle and the one before, both warm
    hello, UseBundle, reports ──────────┼── a turn ────┼──> mailbox: offers to the devices that are to have it
    notices (mailbox) ──────────────────┘              └──> versions.py: wider, or back (canary.py)

A turn is taken when something happened, and now and then. All that it knows is on disk; killed at any moment, the next
process finds what is in force, what was offered, and who stands where.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from headwater.compression.background import background
from headwater.compression.errors import BundleError, HeadwaterError, RolloutError
from headwater.protos import edge_pb2 as pb
from headwater.server.mail.doorbell import Doorbell
from headwater.server.mail.records import Wanted
from headwater.server.rollout import canary
from headwater.server.rollout.counts import Counts, Settled
from headwater.server.rollout.deltas import Packs
from headwater.server.rollout.versions import Versions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from prometheus_client import CollectorRegistry

    from headwater.server.mail.mailbox import Mailbox
    from headwater.server.mail.records import Device, Notice, Offered
    from headwater.server.registry import Registry, Served
    from headwater.server.rollout.versions import Released

T = TypeVar("T")

CAPABILITY = "bundles"
"""Of a device that takes bundles."""
LOOK_S = 2.0
"""How often a turn is taken though nothing is known to have happened."""
VALID_S = 30 * 24 * 3600.0
WHOLE, WORD = "whole", "word"
"""Stand beside a device that a difference was of no use to, and one that only has to hear of a release."""

_log = logging.getLogger("headwater.server")


@dataclass(frozen=True)
class _Report:
    device: str
    session: int
    uses: Sequence[pb.BundleUse]


class Conductor:
    """Releases of one serving process; made and used on its event loop."""

    def __init__(
        self,
        state: Path,
        mailbox: Mailbox,
        registry: Registry,
        look: Callable[[], None],
        changed: Callable[[Sequence[Served]], None],
        metrics: CollectorRegistry,
    ) -> None:
        """Open what was released; raises :class:`StorageError`.

        Args:
            state: the server's folder.
            mailbox: in it.
            registry: of the bundles that are served.
            look: have devices told of what is new in the mailbox.
            changed: the registry changed; gets the bundles that it no longer serves.
            metrics: where to count.
        """
        self._versions = Versions(state)
        self._mailbox = mailbox
        self._registry = registry
        self._look = look
        self._changed = changed
        self._counts = Counts(metrics, lambda: len(registry.served))
        self._packs = Packs(self._versions, mailbox, registry)
        self._loop = asyncio.get_running_loop()
        self._thread = background("headwater-rollout", threads=registry.threads)
        self._bell = Doorbell(state)
        self._something = asyncio.Event()
        self._reports: deque[_Report] = deque(maxlen=10_000)
        self._now: dict[str, bytes] = {}
        self._task: asyncio.Task[None] | None = None
        self._complaint = ""
        self._complained: set[int] = set()

    async def start(self) -> None:
        """Serve what is in force, so that no device that has it is turned away, then begin."""
        await self._in_thread(self._serve_all)
        self._loop.add_reader(self._bell.fileno(), self._rang)
        self._task = asyncio.create_task(self._run(), name="headwater-rollout")

    async def stop(self) -> None:
        """End the turn that is being taken, note what devices reported since, and close."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        await self._attempt(self._take_reports)
        self._loop.remove_reader(self._bell.fileno())
        await asyncio.to_thread(self._thread.shutdown)
        self._bell.close()
        self._versions.close()

    # ------------------------------------------------------------ what the service tells

    def uses(self, device: str, bundle_id: bytes) -> None:
        """A device said which bundle it uses."""
        self._now[device] = bundle_id
        self._something.set()

    def report(self, device: str, session: int, report: pb.Report) -> None:
        """A device said how its bundles do."""
        self._reports.append(_Report(device, session, list(report.bundles)))
        self._something.set()

    async def revive(self, bundle_id: bytes) -> bool:
        """Serve an earlier bundle again, for a device that still has it; False if it was never published here."""
        return len(bundle_id) == 32 and await self._in_thread(partial(self._revive, bundle_id))

    def _revive(self, bundle_id: bytes) -> bool:
        if not self._versions.has(bundle_id):
            return False
        try:
            self._registry.revive(self._versions.load(bundle_id))
        except BundleError as error:
            _log.error("a bundle cannot be served again", extra={"bundle": bundle_id.hex(), "error": str(error)})
            return False
        return True

    # ------------------------------------------------------------ turns

    def _rang(self) -> None:
        if self._bell.heard():
            self._something.set()

    async def _run(self) -> None:
        while True:
            self._something.clear()
            await self._take_turn()
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._something.wait()
            except TimeoutError:
                continue

    async def _take_turn(self) -> None:
        if await self._attempt(self.turn):
            self._look()

    async def _attempt(self, work: Callable[[], T]) -> T | None:
        try:
            done = await self._in_thread(work)
        except (HeadwaterError, OSError) as error:
            if str(error) != self._complaint:  # it is tried again and again
                self._complaint = str(error)
                _log.error("the roll-out has to wait", extra={"error": str(error)})
            return None
        self._complaint = ""
        return done

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._thread, work)

    def turn(self) -> bool:
        """Look at everything once; True if devices are to be told of something."""
        self._take_reports()
        devices = [device for device in self._mailbox.devices() if CAPABILITY in device.capabilities]
        self._take_notices({device.node: device.name for device in devices})
        told = False
        for name in self._versions.names():
            if (release := self._advance(name)) is not None and not self._ended(release):
                told |= self._offer_all(release, [device for device in devices if self._runs(device, name)])
        return told

    def _take_reports(self) -> None:
        while self._reports:
            report = self._reports.popleft()
            self._versions.take_report(report.device, report.session, report.uses)

    def _advance(self, name: str) -> Released | None:
        """Widen the release in force or go back from it; the one that is in force then, served."""
        release = self._versions.in_force(name)
        if release is not None and (verdict := self._judge(release)).do != "wait":
            release = self._follow(release, verdict)
        if release is not None:
            self._counts.in_force(release)
            self._serve(release)
        return release

    def _ended(self, release: Released) -> bool:
        """Whether no device follows it any more that has not yet."""
        ended = release.expires <= time.time()
        if ended and release.serial not in self._complained:
            self._complained.add(release.serial)
            _log.error(
                "a release has ended; `headwater server refresh` signs it anew",
                extra={"release": release.serial, "bundle": release.bundle[:5].hex()},
            )
        return ended

    def _judge(self, release: Released) -> canary.Verdict:
        if release.back:
            return canary.Verdict("wait", "it is what was gone back to")
        members = self._versions.members(release.serial).values()
        reached = [standing for standing, _ in members if standing != "chosen"]
        return canary.decide(
            self._versions.figures(release.bundle),
            canary.Figures() if release.previous is None else self._versions.figures(release.previous),
            release.rules,
            from_frames=release.from_frames,
            everywhere=release.stage != "canary",
            reached=len(reached),
            trouble_of=[detail for standing, detail in members if standing in {"refused", "left"}],
        )

    def _follow(self, release: Released, verdict: canary.Verdict) -> Released | None:
        facts = {"release": release.serial, "bundle": release.bundle[:5].hex(), "why": verdict.why}
        if verdict.do == "widen":
            share = release.share * release.rules.wider
            frames = self._versions.figures(release.bundle).frames
            self._versions.widen(release.serial, share, frames, verdict.why)
            _log.info("a release widens", extra={**facts, "share": min(share, 1.0)})
            return self._versions.in_force(release.name)
        try:
            back = self._versions.leave(release.serial, verdict.why)
        except RolloutError as error:
            _log.error("a release cannot be gone back from", extra={**facts, "error": str(error)})
            return release
        _log.warning("a release was gone back from", extra=facts)
        return back

    # ------------------------------------------------------------ serving

    def _serve_all(self) -> None:
        """Serve what is in force; what is served already is kept, as what a first release may be gone back to."""
        for served in self._registry.served:
            self._versions.add(served.bundle)
        for name in self._versions.names():
            if (release := self._versions.in_force(name)) is not None:
                self._serve(release)

    def _serve(self, release: Released) -> None:
        """Serve the bundle of a release as the newest, and the one before, which devices leave one by one."""
        newest = self._registry.by_name(release.name)
        if newest is not None and newest.id == release.bundle:
            return
        for bundle_id in (release.previous, release.bundle):
            if bundle_id is None or (bundle_id == release.previous and self._registry.find(bundle_id) is not None):
                continue
            known = self._registry.find(bundle_id)
            retired = self._registry.add(self._versions.load(bundle_id) if known is None else known.bundle)
            self._loop.call_soon_threadsafe(self._changed, retired)

    def _runs(self, device: Device, name: str) -> bool:
        """Whether a device has a bundle of this name."""
        bundle_id = self._bundle_of(device)
        served = self._registry.find(bundle_id)
        if served is not None:
            return served.name == name
        return any(version.id == bundle_id and version.name == name for version in self._versions.all())

    def _bundle_of(self, device: Device) -> bytes:
        return self._now.get(device.name, device.bundle_id)

    # ------------------------------------------------------------ offering

    def _take_notices(self, names: dict[int, str]) -> None:
        last = self._versions.seen("notices")
        for notice in self._mailbox.notices(last):
            if notice.node in names:
                self._take_notice(names[notice.node], notice)
            last = notice.number
        self._versions.saw("notices", last)

    def _take_notice(self, device: str, notice: Notice) -> None:
        releases = (one for one in self._versions.releases() if one.bundle == notice.bundle_id)
        reached = ((one, self._versions.members(one.serial).get(device)) for one in releases)
        release, stood = next(((one, stood) for one, stood in reached if stood is not None), (None, None))
        if release is None or stood is None or release.stage == "left":
            return
        standing, detail = stood
        match notice.state:
            case _ if detail == WORD:
                return  # the offer's reply says whether it has heard
            case pb.BUNDLE_STATE_IN_USE:
                self._stand(release, device, standing, "in use")
            case pb.BUNDLE_STATE_ROLLED_BACK:
                self._stand(release, device, standing, "left", notice.detail)
            case pb.BUNDLE_STATE_REFUSED if standing == "chosen" and detail != WHOLE:
                # It may have been the difference that it could not use: all of it is offered before it is believed.
                self._versions.stand(release.serial, device, "chosen", WHOLE)
            case pb.BUNDLE_STATE_REFUSED:
                self._stand(release, device, standing, "refused", notice.detail)

    def _stand(self, release: Released, device: str, before: str, now: Settled, detail: str = "") -> None:
        """Note how a device stands to a release, and count it if that is new."""
        self._versions.stand(release.serial, device, now, detail)
        if now != before:
            self._counts.stands(release.name, now)

    def _offer_all(self, release: Released, devices: list[Device]) -> bool:
        """Offer a bundle to those devices that are here and are to have it; True if that is new to one."""
        members = self._versions.members(release.serial)
        here = [device for device in devices if device.connected]
        others = canary.ranked((device.name for device in here if device.name not in members), release.serial)
        chosen = {*members, *others[: canary.room(release.share, len(devices), len(members))]}
        told = [self._offer(release, device, members) for device in here if device.name in chosen]
        return any(told)

    def _offer(self, release: Released, device: Device, members: Mapping[str, tuple[str, str]]) -> bool:
        """Offer a bundle to a device; True if that is new."""
        standing, detail = members.get(device.name, ("", ""))
        has = self._bundle_of(device)
        to_hear = has == release.bundle and (not standing or detail == WORD)
        if has == release.bundle and not to_hear:
            if standing != "in use":
                self._stand(release, device.name, standing, "in use")
            self._withdraw(device, "")
            return False
        if standing in {"refused", "left"}:
            self._withdraw(device, "")
            return False
        if not standing:
            # Who has the bundle is to hear of its release, too: else nobody could tell that releases are held back.
            self._versions.stand(release.serial, device.name, "chosen", WORD if to_hear else "")
        pack = self._packs.for_device(release.bundle, has, device.capabilities, whole=detail == WHOLE)
        key, found = self._key(f"bundle-{release.serial}-{device.node:x}-{pack.key}")
        if to_hear and found is not None and found.state != "offered":
            # It has heard, or will not hear; it has the bundle, and keeps it.
            self._versions.stand(release.serial, device.name, "in use", found.detail)
            self._withdraw(device, "")
            return False
        self._withdraw(device, key)
        if found is None:
            wanted = Wanted(
                key,
                device.node,
                "bundle",
                self._packs.put(pack),
                release.bundle,
                envelope=release.statement,
                valid_for_s=min(VALID_S, release.expires - time.time()),
            )
            self._mailbox.offer([wanted])
        elif found.state == "refused":
            self._stand(release, device.name, standing, "refused", found.detail)
        return found is None

    def _key(self, stem: str) -> tuple[str, Offered | None]:
        """The key of an offer, and the offer as it stands; a withdrawn one is made again under another key."""
        for attempt in itertools.count():
            key = f"{stem}-{attempt}"
            found = next(iter(self._mailbox.find([key])), None)
            if found is None or found.state != "withdrawn":
                return key, found
        raise AssertionError

    def _withdraw(self, device: Device, but: str) -> None:
        """Withdraw what a device was offered before: it has one bundle to follow."""
        others = [one.key for one in self._mailbox.open_offers(device.node, "bundle", 100) if one.key != but]
        if others:
            self._mailbox.withdraw(others, "another bundle is to be used, or it is in use")
