"""Child processes that do not outlive this one.

Each child is a ``headwater`` command in a session of its own: Ctrl-C at the terminal reaches this process alone, which
then ends its children in order. If it cannot, because it was killed, the kernel sends them SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from headwater.compression.errors import HeadwaterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TERMINATE_S, KILL_S = 8.0, 5.0
TAIL_LINES = 12

# Linux sends a child this signal when the thread that started it ends, however it ends (prctl 1, PR_SET_PDEATHSIG). Set
# between fork and exec it would run Python in a forked copy of this process, so a fresh interpreter sets it and becomes
# the command; if the parent has gone meanwhile it does not start.
_LAUNCH = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.executable, [sys.executable, "-m", "headwater.compression.cli", *sys.argv[2:]])
"""


class ChildError(HeadwaterError):
    """A process of the demo ended or kept silent when it was needed; the message has its last words."""


class Child:
    """``async with Child("server", ["server", "--bundle", ...], log) as child: ...`` ends it on the way out."""

    def __init__(self, name: str, arguments: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        """``headwater ARGUMENTS...``, its output appended to `log`; ``env`` is added to its environment."""
        self.name = name
        self.arguments = list(arguments)
        self.log = log
        self._env = dict(env or {})
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                _LAUNCH,
                str(os.getpid()),
                *self.arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment() | self._env,
                start_new_session=True,
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def pid(self) -> int:
        """Of the process, which leads a group of its own."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status; None while it runs, negative for a signal."""
        assert self._process is not None, "not started"
        return self._process.returncode

    async def wait(self) -> int:
        """Wait for its end; the exit status."""
        assert self._process is not None, "not started"
        return await self._process.wait()

    async def line(self, start: str, timeout_s: float) -> str:
        """Wait for a line that begins so in its output; raises :class:`ChildError` if it ends or time is up first."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            ended = self.status is not None  # asked before reading, so that the last words are read as well
            for line in self.output().splitlines():
                if line.startswith(start):
                    return line
            if ended:
                raise ChildError(f"the {self.name} ended with status {self.status}: {self.last_words()}")
            if asyncio.get_running_loop().time() > deadline:
                raise ChildError(f"the {self.name} was not ready within {timeout_s:g} s: {self.last_words()}")
            await asyncio.sleep(0.02)

    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def last_words(self) -> str:
        """The end of its output, for a message."""
        lines = [line for line in self.output().splitlines() if line.strip()]
        return "\n".join(lines[-TAIL_LINES:]) or "it said nothing"

    def ask(self) -> None:
        """Ask it to end, and do not wait: of several, each can then take its time at the same time."""
        if self.status is None:
            self._send(signal.SIGTERM)

    async def stop(self) -> None:
        """Ask it to end, then make it; returns when it is gone, and whatever it started with it."""
        if self._process is None:
            return
        self.ask()
        await self._gone(TERMINATE_S)
        self._send(signal.SIGKILL)
        await self._gone(KILL_S)

    def _send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    async def _gone(self, patience_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self.wait()


def _environment() -> dict[str, str]:
    """This process's, without the user's settings: a demo is the same everywhere."""
    return {key: value for key, value in os.environ.items() if not key.startswith("HEADWATER_")}
