"""Flower's own ways to run apps, for tests: a SuperLink with SuperNodes, in processes of Flower's."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
WITHIN_S = 900.0
"""A SuperNode starts a process for each message, and asks for work every few seconds."""
_PROJECT = """
[project]
name = "fleet"
version = "1.0.0"
description = "Apps of a test"
dependencies = ["flwr"]
[tool.flwr.app]
publisher = "headwater"
[tool.flwr.app.components]
serverapp = "{server}"
clientapp = "{client}"
[tool.flwr.app.config]
"""


def make_app(folder: Path, server: str, client: str, config: Mapping[str, str | int | float], code: str = "") -> Path:
    """A folder that `flwr run` takes, with the run's config; ``code`` is its module `apps`."""
    folder.mkdir(parents=True)
    lines = [f"{name} = {json.dumps(value)}" for name, value in config.items()]
    project = _PROJECT.format(server=server, client=client) + "\n".join(lines)
    (folder / "pyproject.toml").write_text(project, encoding="utf-8")
    (folder / "apps.py").write_text(code, encoding="utf-8")
    return folder


class Flower:
    """A SuperLink, SuperNodes with these node configs, and `flwr run`."""

    def __init__(self, folder: Path, nodes: Sequence[str]) -> None:
        self.folder = folder
        self._nodes = nodes
        self._env = {
            **os.environ,
            "FLWR_HOME": str(folder),
            "FLWR_TELEMETRY_ENABLED": "0",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }

    @contextmanager
    def running(self) -> Iterator[None]:
        """All processes, ended at the end."""
        port, *ports = free_ports(1 + len(self._nodes))
        connection = f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
        (self.folder / "config.toml").write_text(connection, encoding="utf-8")
        link = ("flower-superlink", "--insecure", "--port", str(port), "--disable-runtime-dependency-installation")
        with ExitStack() as processes:
            processes.enter_context(self._process("superlink", link))
            until(lambda: listens(port), "the SuperLink listens")
            for number, (own, config) in enumerate(zip(ports, self._nodes, strict=True)):
                words = ("flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}", "--port", str(own))
                processes.enter_context(self._process(f"supernode-{number}", (*words, "--node-config", config)))
            yield

    def run(self, app: Path) -> str:
        """`flwr run`, to the end of the run; what its ServerApp said."""
        command = ["flwr", "run", str(app), "here", "--stream"]
        done = subprocess.run(command, env=self._env, check=False, capture_output=True, text=True, timeout=WITHIN_S)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{self.logs()}"
        return done.stdout + done.stderr

    def logs(self) -> str:
        """What all processes said last."""
        return "\n".join(f"{log.name}:\n{log.read_text()[-3000:]}" for log in sorted(self.folder.glob("*.log")))

    @contextmanager
    def _process(self, name: str, command: Sequence[str]) -> Iterator[None]:
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, env=self._env, stdout=log, stderr=log, start_new_session=True)
        try:
            yield
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with those that it started
            process.wait()


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for something that other processes do."""
    end_s = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < end_s, f"waited in vain until {what}"
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now."""
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def listens(port: int) -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
