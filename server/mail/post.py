"""The serving process's part of federated learning and rollout: the mailbox opened for all devices.

Only one process serves a mailbox; who else works with it (rounds, a rollout) rings when there is something new.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from headwater.compression.errors import SettingsError
from headwater.protos import edge_pb2 as pb
from headwater.server.mail.disk import Disk
from headwater.server.mail.doorbell import LOOK_S, Doorbell
from headwater.server.mail.exchange import Exchange
from headwater.server.mail.gaps import Gaps
from headwater.server.mail.mailbox import SWEEP_S, Mailbox
from headwater.server.mail.offers import Offers

if TYPE_CHECKING:
    from headwater.server.mail.gaps import Frames
    from headwater.server.mail.offers import Line
    from headwater.server.metrics import Metrics


class Post:
    """Offers and transfers of one serving process; used on its event loop."""

    def __init__(self, folder: Path, limit_bytes: int, frames: Frames, metrics: Metrics) -> None:
        """Open the mailbox; raises :class:`SettingsError` if another process serves it, :class:`StorageError`."""
        self.mailbox = Mailbox(folder, limit_bytes)
        self._lock = _lock(folder)
        self._bell = Doorbell(folder)
        self.mailbox.own_bell = self._bell
        self.mailbox.nobody_is_connected()
        self._disk = Disk()
        self.offers = Offers(self.mailbox, self._disk, metrics)
        gaps = Gaps(frames, lambda node: [line.session for line in self.offers.lines(node)])
        self.exchange = Exchange(self.mailbox, self.offers, self._disk, gaps, metrics)
        self._loop = asyncio.get_running_loop()
        self._tasks: list[asyncio.Task[None]] = []
        metrics.watch_federation(lambda: self.offers.federated)

    def start(self) -> None:
        """Begin to listen to the bell."""
        self._loop.add_reader(self._bell.fileno(), self._rang)
        self._tasks = [asyncio.create_task(self._look_now_and_then()), asyncio.create_task(self._sweep_now_and_then())]

    def take(self, line: Line, message: pb.DeviceMessage) -> None:
        """Take a device's word on an offer or a bundle; raises :class:`Refusal`."""
        if message.HasField("offer_reply"):
            self.offers.replied(line, message.offer_reply)
        else:
            self.offers.noticed(line, message.bundle_notice)

    async def stop(self) -> None:
        """Write what is pending and close; more than once is as good as once."""
        if not self._tasks:
            return
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._loop.remove_reader(self._bell.fileno())
        await asyncio.to_thread(self._disk.close)
        self._bell.close()
        self.mailbox.close()
        self._lock.close()

    def _rang(self) -> None:
        if self._bell.heard():
            self.offers.look()

    async def _look_now_and_then(self) -> None:
        while True:
            self._disk.then(self.mailbox.expire)
            self.offers.look()
            await asyncio.sleep(LOOK_S)

    async def _sweep_now_and_then(self) -> None:
        while True:
            self._disk.then(self.mailbox.sweep)
            await asyncio.sleep(SWEEP_S)


def _lock(folder: Path) -> BinaryIO:
    with contextlib.ExitStack() as opened:
        file = opened.enter_context((folder / "serving").open("ab"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(f"state is {folder}, which another server serves; give each its own") from None
        opened.pop_all()
    return file
