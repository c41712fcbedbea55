"""Real processes for the integration tests: a server that can be killed and started again, and agents."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Self

HEADWATER = (sys.executable, "-m", "headwater.compression.cli")
END_TIMEOUT_S = 180


class ServerProcess:
    """``headwater server`` on one port for its whole life, across kills."""

    def __init__(
        self,
        *bundles: Path,
        more: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        stderr: IO[str] | None = None,
    ) -> None:
        self.bundles = bundles
        self._stderr = stderr
        self.more = more
        """Further arguments."""
        self._env = env
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it takes work."""
        bundles = [word for bundle in self.bundles for word in ("--bundle", str(bundle))]
        listen = ("--listen", self.address, "--http", "", "--log-level", "warning", *self.more)
        self._process = subprocess.Popen(
            [*HEADWATER, "server", *bundles, *listen],
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env=self._env,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found = re.search(r"grpc=\S+:(\d+)", line)
        assert found, f"the server said {line!r}"
        self.port = int(found[1])

    def end(self, number: signal.Signals) -> None:
        """Send a signal and wait for the end."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.communicate(timeout=END_TIMEOUT_S)

    def kill(self) -> None:
        """Kill it, and wait for nothing."""
        self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send a signal, and wait for nothing."""
        assert self._process is not None
        self._process.send_signal(number)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGKILL)


class AgentProcess:
    """``headwater device`` with these arguments; killed at the end of the block if it has not ended by itself."""

    def __init__(
        self, *arguments: str, command: tuple[str, ...] = HEADWATER, env: Mapping[str, str] | None = None
    ) -> None:
        self._command = (*command, "device", *arguments)
        self._env = env
        self.process: asyncio.subprocess.Process

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(
            *self._command, stdin=pipe, stdout=pipe, stderr=pipe, env=self._env
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.communicate()

    async def line(self) -> str:
        """Wait for the next line that it prints."""
        assert self.process.stdout is not None
        async with asyncio.timeout(END_TIMEOUT_S):
            return (await self.process.stdout.readline()).decode()

    async def finish(self, stdin: bytes | None = None) -> tuple[int, str, str]:
        """Wait for its end; exit status, what it printed and its errors."""
        async with asyncio.timeout(END_TIMEOUT_S):
            out, err = await self.process.communicate(stdin)
        assert self.process.returncode is not None
        return self.process.returncode, out.decode(), err.decode()
