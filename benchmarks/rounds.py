"""What a federated round costs beside its training: two devices, 4 MB down and up, nothing to train; Flower's own too.

    python -m benchmarks.rounds

Real processes at both ends, over loopback. Ours: `headwater server --state`, two `headwater device` with a training
process each, and Flower's FedAvg in this process on `StreamGrid`; the server's limit of bytes a device and second is
off, or at its 8 MiB a round of 4 MB would take half a second whatever it cost. The peer: Flower's SuperLink and two
SuperNodes, and the very same strategy and app by `flwr run`, in the same run by turns. The first round of each is left
out: at both ends it starts processes that later ones find warm, where they are kept at all. The strategy's own part,
making the messages and averaging, is in both figures. Each device makes every number a little larger, so that what goes
up is not what came down (bytes that the server has already do not travel), and packs no better; the result is asserted.

Beside that: a third device, which does not train, sends frames, by turns while rounds go on and while none do. All of
its frames have to be answered, and its p95 is compared: with the server as it is started, whose limit keeps devices
that train from taking all that there is, and with the one above, where such rounds follow each other as fast as they
can. Devices are machines of their own, and here there are two cores: the third device has one to itself, as it has in
life; the server, the rounds, at the priority that `headwater server federate` has, and the devices that train, which
take what these leave, share the other. On a machine with one core all share it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import NamedTuple

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import flwr
import numpy as np
from PIL import Image

from benchmarks import claims
from benchmarks.round_apps import timed_rounds
from headwater.compression.background import give_way
from headwater.device import FrameRecord, read_records
from headwater.server.federation.grid import StreamGrid

NAME = "rounds"
BUNDLE = Path("simulations/bundles/solar")
NODES, FLOATS = 2, 1_000_000
TARGET_S = 0.15
NO_LIMIT = ("--max-device-bytes-per-s", "0")
FPS, QUIET_S, ROUNDS_A_TURN = 50, 4.0, 10
WITHIN_S = 180.0
ROOT = Path(__file__).parents[1]
_HEADWATER = (sys.executable, "-m", "headwater.compression.cli")
_APP = """
[project]
name = "rounds"
version = "1.0.0"
description = "Rounds that train nothing"
dependencies = ["flwr"]
[tool.flwr.app]
publisher = "headwater"
[tool.flwr.app.components]
serverapp = "round_apps:server"
clientapp = "round_apps:client"
[tool.flwr.app.config]
nodes = {nodes}
floats = {floats}
rounds = {rounds}
out = "{out}"
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    options = claims.options(__doc__, arguments)
    floats, rounds, peers_rounds = (50_000, 3, 2) if options.quick else (FLOATS, 11, 6)
    turns = 1 if options.quick else 3
    with tempfile.TemporaryDirectory(prefix="headwater-rounds-") as made:
        with _headwater(Path(made) / "headwater", *NO_LIMIT) as there:
            theirs, why = flower_rounds(Path(made) / "flower", floats, peers_rounds)  # ours waits meanwhile
            _show("Flower's SuperLink", theirs)
            own, unlimited = headwater_rounds(there, floats, rounds, turns)
            _show("headwater", own)
        with _headwater(Path(made) / "limited") as there:
            _, beside = headwater_rounds(there, floats, 2, turns)
    peer = f"flwr {flwr.__version__}" if theirs else f"flwr {flwr.__version__} did not run: {why}"
    what = f"{NODES} devices, {4 * floats / 1e6:g} MB each way, no training"
    ratio = median(theirs[1:]) / median(own[1:]) if theirs else None
    found = [
        claims.at_most(NAME, f"a round of {what}", median(own[1:]), unit="s", target=TARGET_S, peer="none"),
        claims.at_least(NAME, f"times quicker than Flower's own, {what}", ratio, unit="x", target=20, peer=peer),
    ]
    what = "p95 of another device's answers during rounds, more"
    found += [
        claims.at_most(NAME, name, more, unit="%", target=10, peer="no rounds")
        for name, more in ((what, beside), (f"{what}, with no limit of a device's bytes", unlimited))
    ]
    return claims.report("Federated rounds", found, options)


def _show(name: str, seconds: Sequence[float]) -> None:
    print(f"{name}: " + (" ".join(f"{one:.3f}" for one in seconds) or "nothing") + " s")


# ---------------------------------------------------------------- ours


class There(NamedTuple):
    """What runs, by its process's number."""

    folder: Path
    server: int
    address: str
    agents: list[int]


@contextmanager
def _headwater(folder: Path, *limits: str) -> Iterator[There]:
    """A server with these limits, and two agents that train."""
    with ExitStack() as running:
        server, address = running.enter_context(_server(folder, limits))
        agents = [running.enter_context(_agent(folder, f"cam-{number}", address)) for number in range(NODES)]
        yield There(folder, server, address, agents)


def headwater_rounds(there: There, floats: int, rounds: int, turns: int) -> tuple[list[float], float]:
    """Seconds of each round through a server and two agents; by how many % a third one's p95 is longer meanwhile."""
    with StreamGrid(there.folder / "state") as grid:
        _until(lambda: len(list(grid.get_node_ids())) == NODES, "the devices connect")
        seconds = timed_rounds(grid, NODES, floats, rounds)
        with _apart(there.server, there.agents) as cores:
            return seconds, _beside(grid, there.folder, there.address, cores, floats, turns)


@contextmanager
def _apart(server: int, agents: Sequence[int]) -> Iterator[set[int]]:
    """The server, this process and the devices that train on the first core; the others are given."""
    every = sorted(os.sched_getaffinity(0))
    first, rest = {every[0]}, set(every[1:]) or {every[0]}
    for task in (task for process in (os.getpid(), server, *agents) for task in _tasks(process)):
        os.sched_setaffinity(task, first)
    for task in (task for agent in agents for task in _tasks(agent)):
        os.sched_setscheduler(task, os.SCHED_IDLE, os.sched_param(0))
    give_way()
    try:
        yield rest
    finally:
        for task in _tasks(os.getpid()):
            os.sched_setaffinity(task, every)


def _tasks(process: int) -> Iterator[int]:
    """All threads of a process, and of those that it has started; for a moment in which none begins or ends."""
    for task in Path(f"/proc/{process}/task").iterdir():
        yield int(task.name)
        for child in (task / "children").read_text(encoding="ascii").split():
            yield from _tasks(int(child))


def _beside(grid: StreamGrid, folder: Path, address: str, cores: set[int], floats: int, turns: int) -> float:
    """Let a device send frames, by turns with rounds and without."""
    records = folder / "records.jsonl"
    spans: dict[bool, list[tuple[datetime, datetime]]] = {False: [], True: []}
    with _watching(folder, address, records, cores):
        _until(lambda: records.exists() and records.stat().st_size > 0, "the third device's frames are answered")
        for turn in range(turns):
            for learning in (False, True):
                began = datetime.now(UTC)
                if learning:
                    timed_rounds(grid, NODES, floats, ROUNDS_A_TURN, seed=1 + turn)
                else:
                    time.sleep(QUIET_S)
                spans[learning].append((began, datetime.now(UTC)))
    shown = list(read_records(records))
    assert {record.status for record in shown} == {"ok"}, "a frame was lost"
    quiet_ms, learning_ms = (_p95_ms(shown, spans[learning]) for learning in (False, True))
    print(f"a device beside: p95 {quiet_ms:.1f} ms without rounds, {learning_ms:.1f} ms during rounds")
    return 100 * (learning_ms / quiet_ms - 1)


def _p95_ms(shown: Sequence[FrameRecord], spans: Sequence[tuple[datetime, datetime]]) -> float:
    times = [one.latency_ms for one in shown if any(a <= datetime.fromisoformat(one.taken) < b for a, b in spans)]
    return float(np.percentile(times, 95))


@contextmanager
def _watching(folder: Path, address: str, records: Path, cores: set[int]) -> Iterator[None]:
    """On these cores an agent that does not train and sends frames of noise."""
    photos = folder / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for number in range(16):
        picture = Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).resize((256, 256), Image.Resampling.BICUBIC)
        picture.save(photos / f"{number:02}.png")
    words = {"--name": "watch", "--bundle": BUNDLE, "--server": address, "--source": photos, "--records": records}
    arguments = [str(word) for pair in words.items() for word in pair]
    command = [*_HEADWATER, "device", *arguments, "--repeat", "--fps", str(FPS)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT) as process:
        os.sched_setaffinity(process.pid, cores)  # before it has other threads
        try:
            yield
        finally:
            process.terminate()


@contextmanager
def _server(folder: Path, limits: Sequence[str]) -> Iterator[tuple[int, str]]:
    """A server; its number and its address."""
    words = ("server", "--bundle", str(BUNDLE), "--listen", "127.0.0.1:0", "--http", "", "--grace-s", "0")
    more = ("--state", str(folder / "state"), "--log-level", "warning", *limits)
    with subprocess.Popen([*_HEADWATER, *words, *more], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            address = re.search(r"grpc=(\S+)", line)
            assert address, f"the server said {line!r}"
            yield process.pid, address[1]
        finally:
            process.terminate()


@contextmanager
def _agent(folder: Path, name: str, address: str) -> Iterator[int]:
    """An agent without pictures, its number: its standard input is open, and nothing comes."""
    data = folder / name
    data.mkdir()
    words = {
        "--name": name,
        "--bundle": BUNDLE,
        "--server": address,
        "--source": "-",
        "--state": folder / f"{name}-state",
        "--train-data": data,
        "--train-app": "benchmarks.round_apps:client",
    }
    arguments = [str(word) for pair in words.items() for word in pair]
    command = [*_HEADWATER, "device", *arguments, "--train-on-battery"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=ROOT) as process:
        try:
            yield process.pid
        finally:
            process.kill()  # in order it would complain that no picture came


# ---------------------------------------------------------------- Flower's own


def flower_rounds(folder: Path, floats: int, rounds: int) -> tuple[list[float], str]:
    """Seconds of each round through a SuperLink and two SuperNodes; if there are none, why."""
    out = folder / "seconds.json"
    app = folder / "app"
    app.mkdir(parents=True)
    told = {"nodes": NODES, "floats": floats, "rounds": rounds, "out": out}
    (app / "pyproject.toml").write_text(_APP.format(**told), encoding="utf-8")
    shutil.copy(Path(__file__).with_name("round_apps.py"), app)
    port, *nodes = _free_ports(1 + NODES)
    connection = f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    (folder / "config.toml").write_text(connection, encoding="utf-8")
    env = {**os.environ, "FLWR_HOME": str(folder), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    link = ("flower-superlink", "--insecure", "--port", str(port), "--disable-runtime-dependency-installation")
    try:
        with ExitStack() as running:
            running.enter_context(_process(link, folder, env))
            _until(lambda: _listens(port), "the SuperLink listens")
            for node in nodes:
                words = ("flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}", "--port", str(node))
                running.enter_context(_process(words, folder, env))
            command = ["flwr", "run", str(app), "here"]
            subprocess.run(command, env=env, check=True, capture_output=True, text=True, timeout=WITHIN_S)
            _until(out.exists, "the rounds end")
    except (OSError, subprocess.SubprocessError, TimeoutError) as error:
        detail = getattr(error, "stdout", None) or ""
        return [], f"{error} {detail.strip()[-200:]}".strip()
    seconds: list[float] = json.loads(out.read_text(encoding="utf-8"))
    return seconds, ""


@contextmanager
def _process(command: Sequence[str], folder: Path, env: dict[str, str]) -> Iterator[None]:
    """A process of Flower's, and those that it starts, killed together at the end: to end in order takes it seconds."""
    with (folder / f"{command[0]}.log").open("ab") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def _until(holds: Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + WITHIN_S
    while not holds():
        if time.monotonic() > end_s:
            raise TimeoutError(f"waited {WITHIN_S:g} s in vain until {what}")
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
