"""What systemd is told, on a real socket; and that a device that hangs does not say that it gets on."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater.device.watchdog import Notifier, Watchdog

TIMEOUT_S = 60.0


class Listener:
    """systemd's end of the socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)

    def variables(self, limit_s: float | None = None, pid: int | None = None) -> dict[str, str]:
        watchdog = {} if limit_s is None else {"WATCHDOG_USEC": str(int(limit_s * 1e6))}
        return {"NOTIFY_SOCKET": self.address, **watchdog, **({} if pid is None else {"WATCHDOG_PID": str(pid)})}

    async def heard(self) -> dict[str, str]:
        async with asyncio.timeout(TIMEOUT_S):
            data = await asyncio.get_running_loop().sock_recv(self.socket, 4096)
        return dict(line.split("=", 1) for line in data.decode().splitlines())

    def silent(self) -> bool:
        try:
            self.socket.recv(4096)
        except BlockingIOError:
            return True
        return False


@pytest.fixture(params=["a path", "an abstract name"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listener]:
    listener = Listener(str(tmp_path / "notify") if request.param == "a path" else f"@headwater-test-{os.getpid()}")
    yield listener
    listener.socket.close()


class Runs:
    """Gets on as long as ``free`` is set and ``trouble`` empty; counts how often it was asked for a turn."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.free.set()
        self.turns = asyncio.Semaphore(0)
        self.trouble = ""

    async def turn(self) -> None:
        self.turns.release()
        await self.free.wait()

    def stuck(self) -> str:
        return self.trouble

    def status(self) -> str:
        return "connected"


async def test_ready_fed_and_stopping(listener: Listener) -> None:
    environ = {**listener.variables(0.02, os.getpid()), "HOME": "/"}
    async with Watchdog.of(environ, Runs()):
        assert await listener.heard() == {"READY": "1", "STATUS": "connected"}
        for _ in range(3):
            assert await listener.heard() == {"WATCHDOG": "1", "STATUS": "connected"}
    while "STOPPING" not in (told := await listener.heard()):
        assert told["WATCHDOG"] == "1"
    assert environ == {"HOME": "/"}, "what is begun by the agent is not to speak for it"


async def test_a_head_that_hangs_is_not_fed_for(listener: Listener) -> None:
    runs = Runs()
    async with Watchdog.of(listener.variables(0.02), runs):
        await listener.heard()
        await listener.heard()
        runs.free.clear()
        while not runs.turns.locked():
            await runs.turns.acquire()
        await runs.turns.acquire()  # it was asked once more, and does not come back
        while not listener.silent():
            pass
        await asyncio.sleep(0.1)  # five times what systemd waits
        assert listener.silent()
        runs.free.set()
        assert (await listener.heard())["WATCHDOG"] == "1"


async def test_who_is_stuck_says_so_at_once(listener: Listener, caplog: pytest.LogCaptureFixture) -> None:
    runs = Runs()
    runs.trouble = "the source has neither given a picture nor failed for 61 s"
    async with Watchdog.of(listener.variables(1000), runs):
        await listener.heard()
        assert await listener.heard() == {"WATCHDOG": "trigger", "STATUS": runs.trouble}
    assert "systemd is asked to start the agent again" in caplog.text


@pytest.mark.parametrize(("limit_s", "pid"), [(None, None), (0.02, 1)])
async def test_without_a_watchdog_of_its_own_there_is_only_a_status(
    listener: Listener, limit_s: float | None, pid: int | None
) -> None:
    async with Watchdog.of(listener.variables(limit_s, pid), Runs()):
        assert (await listener.heard())["READY"] == "1"
        assert await listener.heard() == {"STATUS": "connected"}
        assert (await asyncio.to_thread(listener.silent)) is True


async def test_where_nobody_listens_nothing_is_done(tmp_path: Path) -> None:
    runs = Runs()
    async with Watchdog.of({}, runs):
        await asyncio.sleep(0)
    assert runs.turns.locked()
    gone = Notifier(str(tmp_path / "gone"))
    gone.tell(READY="1")
    gone.close()
