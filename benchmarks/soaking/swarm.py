"""Many devices in one process, each a whole agent with a connection, a spool and records of its own.

    python -m benchmarks.soaking.swarm

    stdin   the orders as one line of JSON; "stop" when no more pictures are to be taken
    stdout  begin DEVICE SECONDS      its agent begins, by the monotonic clock
            ready                     every device is there
            take NAME                 a picture, DEVICE/NUMBER, is about to be given to the agent
            keep NAME ID              the spool has it on disk
            up DEVICE SECONDS         connected; down DEVICE SECONDS
            fell DEVICE WHY           the agent ended with an error, which is none of its business
            done DEVICE               every picture that was taken has its record, and the spool is empty

Each line is one write, so that a kill cuts none. A picture that the process held when it was killed has no record; it
is taken again under its name by the next process, as a camera cannot, but a folder can.

The devices share the head: 500 would need 5 GB. All else is each one's own.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from benchmarks.soaking.plan import DEADLINE_MS, RETRY_S, Member
from headwater.compression.bundle import Bundle
from headwater.device import agent as agent_module
from headwater.device.agent import Agent
from headwater.device.feed import Picture
from headwater.device.head import Coded, FrameMaker, Seen
from headwater.device.loaded import controller_for, load
from headwater.device.record import read_records
from headwater.device.settings import DeviceSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.device.exit import LocalExit
    from headwater.device.kept import KeptFrame
    from headwater.device.loaded import Loaded

PICTURES = 16
LOOK_S = 0.05


def say(*words: object) -> None:
    os.write(1, f"{' '.join(map(str, words))}\n".encode())


# ---------------------------------------------------------------- the shared head


class Shared(FrameMaker):
    """For the threads of many agents."""

    def __init__(self, bundle: Bundle, local_exit: LocalExit | None) -> None:
        self._alone = threading.Lock()
        super().__init__(bundle, local_exit=local_exit)

    def look(self, picture: Image.Image, mode: int) -> Seen:
        with self._alone:
            return super().look(picture, mode)

    def code(self, seen: Seen, mode: int, groups: int | None = None, most_bytes: int | None = None) -> Coded:
        with self._alone:
            return super().code(seen, mode, groups, most_bytes)


def share_heads(bundle: Bundle) -> None:
    """From now on, agents of this process load no head of their own."""

    @cache
    def loaded(deadline_ms: int | None, tasks: tuple[str, ...]) -> Loaded:
        settings = DeviceSettings(deadline_ms=deadline_ms, tasks=tasks)
        alone = load(bundle, settings)
        return replace(alone, maker=Shared(bundle, alone.maker._exit))

    def start(_store: None, _bundle: object, settings: DeviceSettings, _given: None) -> Loaded:
        shared = loaded(settings.deadline_ms, settings.tasks)
        return replace(shared, controller=controller_for(bundle, settings, shared.maker.local_exit))

    agent_module.start = start  # type: ignore[assignment]


# ---------------------------------------------------------------- one device


def settings_of(member: Member, folder: Path, bundle: Bundle) -> DeviceSettings:
    manifest = bundle.manifest
    assert manifest.exit is not None, "a soak needs a bundle with a local exit"
    labelled = tuple(task.name for task in manifest.tasks if task.labels)
    deadline_ms = None if member.kind == "patient" else DEADLINE_MS
    keep = {"patient": "none", "curt": "none", "everything": "all"}.get(member.kind, "unanswered")
    return DeviceSettings(
        name=member.name,
        server=member.servers,
        deadline_ms=deadline_ms,
        tasks=labelled if member.kind in {"deaf", "curt"} else (manifest.exit.task,),
        keep=keep,  # type: ignore[arg-type]
        spool=None if keep == "none" else folder / f"{member.name}.db",
        records=folder / f"{member.name}.jsonl",
        state=folder / member.name,
        retry_s=RETRY_S,
    )


class Device:
    """One agent and its pictures."""

    def __init__(self, member: Member, settings: DeviceSettings, bundle: Bundle, fps: float, phase: float) -> None:
        self.name = member.name
        self.agent = Agent(bundle, settings=settings, connect_timeout_s=None)
        self.stop = asyncio.Event()
        self._fps, self._phase = fps, phase
        self._taken = member.taken
        assert settings.records is not None
        recorded = {record.name for record in read_records(settings.records)} if settings.records.exists() else set()
        names = (f"{member.name}/{number}" for number in range(1, member.taken + 1))
        self._again = [name for name in names if name not in recorded and name not in member.kept]
        self._was_up = False

    async def run(self, pictures: list[Image.Image]) -> None:
        try:
            await self.agent.run(self._feed(pictures))
            await self._delivered()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what the soak looks for
            say("fell", self.name, repr(error).replace("\n", " "))
            return
        say("done", self.name)

    async def _feed(self, pictures: list[Image.Image]) -> AsyncIterator[Picture]:
        for name in self._again:
            yield self._picture(name, pictures)
        due_s = time.monotonic() + self._phase / self._fps
        while not await self._stopped(due_s - time.monotonic()):
            self._taken += 1
            name = f"{self.name}/{self._taken}"
            say("take", name)
            yield self._picture(name, pictures)
            due_s = max(due_s + 1 / self._fps, time.monotonic())

    @staticmethod
    def _picture(name: str, pictures: list[Image.Image]) -> Picture:
        return Picture(name, pictures[int(name.rpartition("/")[2]) % len(pictures)], {}, time.monotonic())

    async def _stopped(self, within_s: float) -> bool:
        try:
            async with asyncio.timeout(max(within_s, 0)):
                await self.stop.wait()
        except TimeoutError:
            return False
        return True

    async def _delivered(self) -> None:
        while self.agent.spool is not None and self.agent.spool.stats.frames:  # noqa: ASYNC110 - a thread's work
            await asyncio.sleep(LOOK_S)

    def tell_what_is_kept(self) -> None:
        spool = self.agent.spool
        if spool is None:
            return
        keep = spool.keep

        def telling(frame: KeptFrame) -> None:
            failed = spool.stats.failed
            keep(frame)
            if spool.stats.failed == failed:
                say("keep", frame.name, frame.id.hex())

        spool.keep = telling  # type: ignore[method-assign]

    def look(self, now_s: float) -> None:
        up = self.agent.link.connected.is_set()
        if up != self._was_up:
            say("up" if up else "down", self.name, f"{now_s:.3f}")
        self._was_up = up


def look(devices: Sequence[Device]) -> None:
    now_s = time.monotonic()
    for device in devices:
        device.look(now_s)


def make_pictures(bundle: Bundle) -> list[Image.Image]:
    """Blurred noise of the input's size: each gives scores of its own."""
    spec, rng = bundle.manifest.input, np.random.default_rng(7)
    found = []
    for _ in range(PICTURES):
        coarse = rng.integers(0, 256, (8, 8, 3), np.uint8)
        found.append(Image.fromarray(coarse).resize((spec.width, spec.height), Image.Resampling.BICUBIC))
    return found


async def main() -> None:
    logging.basicConfig(level="WARNING", format="%(asctime)s %(levelname)-7s %(message)s")
    orders = json.loads(await asyncio.to_thread(sys.stdin.readline))
    bundle, folder = Bundle.load(orders["bundle"]), Path(orders["folder"])
    share_heads(bundle)
    pictures = make_pictures(bundle)
    members = [Member(**{**plain, "servers": tuple(plain["servers"])}) for plain in orders["members"]]
    devices = [
        Device(member, settings_of(member, folder, bundle), bundle, orders["fps"], at / len(members))
        for at, member in enumerate(members)
    ]
    tasks = []
    for at, device in enumerate(devices):
        say("begin", device.name, f"{time.monotonic():.3f}")
        await device.agent.__aenter__()
        device.tell_what_is_kept()
        tasks.append(asyncio.create_task(device.run(pictures)))
        look(devices[: at + 1])
    say("ready")
    stopping = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
    while not all(task.done() for task in tasks):
        look(devices)
        if stopping.done():
            for device in devices:
                device.stop.set()
        await asyncio.sleep(LOOK_S)
    for device in devices:
        await device.agent.__aexit__()


if __name__ == "__main__":
    asyncio.run(main())
