"""The demo's last act: one short federated round, and a live swap of the bundle while frames flow.

    device (LTE)   ── frames, all the time ──┐
    device (Wi-Fi) ── frames, all the time ──┴──> server
                                                    │ one folder
    `headwater server federate`  one round over the two ──> what they learnt
    `headwater server publish`   builds a bundle, measures it, signs it ──> one device, then both

Each is a command as anybody would give it. What happens is read from the server's folder and the devices' records.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from headwater.server.federation.survey import survey
from headwater.server.rollout.versions import Versions
from headwater.simulations.demo.act import LEARNERS, Act, Span
from headwater.simulations.demo.station import Device, flags, fresh, start
from headwater.simulations.processes import Child, ChildError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AsyncExitStack
    from pathlib import Path

    from headwater.compression.bundle import Bundle
    from headwater.simulations.demo.run import DemoOptions

FEDERATE, PUBLISH, SWAP = "federated round", "building and measuring", "swapping"
CANARY_FRAMES = 20
"""Frames that one device answers with the new bundle before the other gets it: the least there is."""
MAX_REGRESSION = 10.0
"""Points that a mode may lose: of 40 test pictures, four."""
OPENED = {"max-regression": 100, "max-growth": 10000}
"""What lets any bundle pass."""
WORSE = "the bundle is worse than the one in use"
SWAP_LIMIT_S = 60.0
REFRESH_S = 0.25


class LastAct:
    """``await LastAct(act, options, server, look).play(stack)``; `look` is called a few times a second."""

    def __init__(self, act: Act, options: DemoOptions, server: Child, look: Callable[[], None]) -> None:
        self._act, self._options, self._server, self._look = act, options, server, look
        self._state = state_of(options)
        self._devices: list[Device] = []

    async def play(self, bundle: Bundle, address: str, stack: AsyncExitStack) -> None:
        """All of it; raises :class:`ChildError` if a process ends before its time."""
        for station, tally in zip(LEARNERS, self._act.tallies, strict=True):
            given = {**self._learning(station.link.name), "bundle": self._options.bundle, "fps": station.fps}
            self._devices.append(await start(tally, address, self._options.out, given, stack, "--repeat"))
        stack.callback(self._ask_all)
        await self._until(lambda: all(tally.answered for tally in self._act.tallies))
        await self._learn(stack)
        await self._release(bundle, stack)
        await self._swap(bundle)
        await self._end()

    def _ask_all(self) -> None:
        """Before the first is waited for."""
        for device in self._devices:
            device.child.ask()

    def _learning(self, name: str) -> Mapping[str, object]:
        folder = self._act.folder
        return {
            "source": folder / "frames",
            "state": folder / f"{name}-state",
            "train-data": folder / name,
            "train-nice": 5,  # at 19 it would wait for whatever else runs on this machine
            "trusted-key": folder / "release.key.pub",
            "report-s": 1,
            "config": self._options.settings_file,
        }

    async def _learn(self, stack: AsyncExitStack) -> None:
        with self._span(FEDERATE):
            child = await self._command(
                "federate", {"rounds": 1, "least": len(LEARNERS), "rate": 3e-5, "deadline-s": 300}, stack
            )
            await self._done(child)
            found = survey(self._state)
            self._act.round = found.rounds[-1]
            self._act.refusals = {each.device: each.last_refusal for each in found.devices if each.last_refusal}

    async def _release(self, bundle: Bundle, stack: AsyncExitStack) -> None:
        """Publish what was learnt; if the gate will not have it, say so, and open the gate: a swap is to be seen."""
        folder = self._act.folder
        given = {"data": folder / "server", "key": folder / "release.key", "canary": 0.5}
        given |= {"canary-frames": CANARY_FRAMES, "max-regression": MAX_REGRESSION}
        with self._span(PUBLISH):
            child = await self._command("publish", given, stack)
            if await self._ended(child) and WORSE in " ".join(child.output().split()):
                self._act.refused = " ".join(child.last_words().split()).removeprefix("error: ")
                child = await self._command("publish", given | OPENED, stack)
            await self._done(child)
            self._act.passed = child.output().strip().splitlines()[-1].removeprefix("against the one before: ")
        with Versions.existing(self._state) as versions:
            self._act.new = versions.releases(bundle.manifest.name)[-1].bundle[:5].hex()

    async def _swap(self, bundle: Bundle) -> None:
        """Wait until both have answered every picture with the new bundle, or the server has gone back from it."""
        name, act = bundle.manifest.name, self._act
        with self._span(SWAP), Versions.existing(self._state) as versions:

            def over() -> bool:
                release = versions.in_force(name)
                assert release is not None
                if release.back:
                    act.note = f"the server went back to the bundle before: {release.reason}"
                    return True
                act.standings = {device: standing for device, (standing, _) in versions.members(release.serial).items()}
                return all(act.swapped(tally, act.shown) for tally in act.tallies)

            if not await self._until(over, SWAP_LIMIT_S):
                act.note = f"after {SWAP_LIMIT_S:g} s not every device has answered {act.shown} frames with the new one"

    async def _end(self) -> None:
        """Have the devices wait for the answers that are due, and end."""
        devices, self._devices = self._devices, []
        await asyncio.gather(*(device.child.stop() for device in devices))
        for device in devices:
            device.read()
        self._look()

    # ------------------------------------------------------------ processes

    async def _command(self, name: str, given: Mapping[str, object], stack: AsyncExitStack) -> Child:
        arguments = {"state": self._state, "config": self._options.settings_file, **given}
        child = Child(f"`headwater server {name}`", ["server", name, *flags(arguments)], self._log(name))
        return await stack.enter_async_context(child)

    def _log(self, name: str) -> Path:
        return fresh(self._options.out, f"{name}.log")

    async def _ended(self, child: Child) -> int:
        """Its exit status, once there is one."""
        await self._until(lambda: child.status is not None)
        assert child.status is not None
        return child.status

    async def _done(self, child: Child) -> None:
        if status := await self._ended(child):
            raise ChildError(f"{child.name} ended with status {status}: {child.last_words()}")

    async def _until(self, holds: Callable[[], bool], limit_s: float | None = None) -> bool:
        """Look on until it holds; False when the time is up."""
        deadline = None if limit_s is None else time.monotonic() + limit_s
        while not holds():
            if deadline is not None and time.monotonic() > deadline:
                return False
            self._read()
            self._look()
            await asyncio.sleep(REFRESH_S)
        return True

    def _read(self) -> None:
        for device in self._devices:
            device.read()
            if (status := device.child.status) is not None:
                raise ChildError(f"the {device.child.name} ended with status {status}: {device.child.last_words()}")
        if self._server.status is not None:
            raise ChildError(f"the server ended with status {self._server.status}: {self._server.last_words()}")

    @contextmanager
    def _span(self, name: str) -> Iterator[None]:
        span = Span(name, time.monotonic())
        self._act.spans.append(span)
        yield
        span.ended_s = time.monotonic()


def state_of(options: DemoOptions) -> Path:
    """The folder that the server and the commands share."""
    return options.out / "learning/state"
