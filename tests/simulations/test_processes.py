"""Children end with their parent, whatever ends it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from headwater.simulations.processes import Child, ChildError

WITHIN_S = 180
"""For a process to say a line, where others take the machine."""


async def test_output_is_kept_and_found(tmp_path: Path) -> None:
    async with Child("teller", ["--version"], tmp_path / "logs" / "a.log") as child:
        assert (await child.line("headwater ", WITHIN_S)).split()[0] == "headwater"
        assert await child.wait() == 0


async def test_a_child_that_fails_is_quoted(tmp_path: Path) -> None:
    async with Child("shower", ["bundle", "show", str(tmp_path / "nothing")], tmp_path / "a.log") as child:
        with pytest.raises(ChildError, match=r"(?s)the shower ended with status 1: .*no bundle at"):
            await child.line("ready", WITHIN_S)


async def test_a_silent_child_is_given_up_and_ends_with_the_error(tmp_path: Path, server_arguments: list[str]) -> None:
    child = Child("server", server_arguments, tmp_path / "a.log")

    async def story() -> None:
        async with child:
            await child.line("headwater server ready", WITHIN_S)
            await child.line("something else", 0.1)

    with pytest.raises(ChildError, match=r"not ready within 0\.1 s"):
        await story()
    assert not psutil.pid_exists(child.pid)


async def test_a_child_that_will_not_end_is_killed(
    tmp_path: Path, server_arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headwater.simulations.processes.TERMINATE_S", 0.1)
    async with Child("server", server_arguments, tmp_path / "a.log") as child:
        await child.line("headwater server ready", WITHIN_S)
        os.kill(child.pid, signal.SIGSTOP)
    assert child.status == -signal.SIGKILL


def test_a_killed_parent_leaves_nobody_behind(tmp_path: Path, server_arguments: list[str]) -> None:
    log = tmp_path / "a.log"
    code = f"""
import asyncio
from pathlib import Path
from headwater.simulations.processes import Child

async def main():
    async with Child("server", {server_arguments!r}, Path({str(log)!r})) as child:
        await child.line("headwater server ready", {WITHIN_S})
        print(child.pid, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    deadline = time.monotonic() + WITHIN_S
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:  # nobody may be there to reap it
        assert time.monotonic() < deadline, "it outlived its parent"
        time.sleep(0.01)


async def test_settings_of_the_user_do_not_reach_a_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_DEVICE_SERVER", "user:1")
    async with Child("config", ["config", "--json"], tmp_path / "a.log") as child:
        await child.wait()
    assert "user:1" not in child.output()
    assert '"device"' in child.output()


@pytest.fixture
def server_arguments(tiny_path: Path) -> list[str]:
    return ["server", "--bundle", str(tiny_path), "--listen", "127.0.0.1:0", "--http", ""]
