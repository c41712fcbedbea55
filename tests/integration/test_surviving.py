"""What happens to devices on poles: a camera that is missing, a card that is full or fails, a clock that is wrong.

Each with the agent as systemd runs it: a process with a socket to say on how it does, its state in one folder, and no
server but where the clock needs one. Disk and clock are taken away by benchmarks/soaking/footing.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.soaking.footing import Footing
from headwater.compression.bundle import Bundle
from headwater.compression.signature import generate
from headwater.device import read_records
from headwater.device.access.identity import Identities
from tests import tiny
from tests.device.access.test_renewal import enrolled
from tests.device.cameras import MjpegServer, mjpeg_server
from tests.device.test_watchdog import Listener
from tests.integration.processes import AgentProcess, ServerProcess
from tests.server.edges import edge

COUNT = 6


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle.save(tmp_path_factory.mktemp("bundles") / "tiny.zip")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(COUNT):
        Image.fromarray(tiny.image(seed)[0]).save(folder / f"{seed}.png")
    return folder


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    """systemd's ear."""
    listener = Listener(str(tmp_path / "notify"))
    yield listener
    listener.socket.close()


ALONE = ("--server", "127.0.0.1:1", "--deadline-ms", 20_000)
"""No server answers there, so the device does."""


def words(bundle: Path, source: Path | str, *more: object) -> list[str]:
    return list(map(str, ("--bundle", bundle, "--source", source, "--retry-s", 0.2, "--tasks", "shape", *more)))


async def error_with(agent: AgentProcess, text: str) -> str:
    """The next line of the log that says so."""
    assert agent.process.stderr is not None
    async with asyncio.timeout(60):
        while text not in (line := (await agent.process.stderr.readline()).decode()):
            assert line, f"it ended without {text!r}"
    return line


async def test_a_camera_that_is_missing_at_the_start_and_goes_away_later(bundle: Path, listener: Listener) -> None:
    camera = MjpegServer(rounds=[1], hang=True)
    with mjpeg_server(camera):
        pass  # its port is known now, and nobody listens there
    env = {**os.environ, **listener.variables(0.4)}
    async with AgentProcess(*words(bundle, camera.url, *ALONE, "--wait-for-source", "--json"), env=env) as agent:
        assert (await listener.heard())["READY"] == "1"
        await error_with(agent, "it is opened again and again until it is there")
        for _ in range(5):
            assert (await listener.heard())["WATCHDOG"] == "1", "a device without a camera gets on"
        names = []
        for _ in range(2):
            with mjpeg_server(camera):
                names.append(json.loads(await agent.line())["name"])
            camera.release.clear()
        agent.process.send_signal(signal.SIGTERM)
        status, out, _ = await agent.finish()
    assert status == 0
    assert names == ["picture000001"] * 2
    assert all(json.loads(line)["source"] == "local" for line in out.splitlines())


async def test_without_being_told_to_wait_a_missing_camera_is_a_mistake(bundle: Path) -> None:
    async with AgentProcess(*words(bundle, "http://127.0.0.1:1/video", *ALONE)) as agent:
        status, _, err = await agent.finish()
    assert status == 1
    assert "http://127.0.0.1:1/video" in err


def everything_on(disk: Path, key: Path) -> list[object]:
    """Flags that have the agent write all that it can."""
    keep = ("--keep", "all", "--spool", disk / "spool.db", "--state", disk / "state", "--trusted-key", key)
    return [*keep, "--records", disk / "records/r.jsonl", "--save-images", disk / "images"]


@pytest.mark.parametrize(
    ("trouble", "used_before"),
    [
        pytest.param({"room": 0}, False, id="full, and nothing there yet"),
        pytest.param({"room": 0}, True, id="full", marks=pytest.mark.slow),
        pytest.param({"read_only": True}, True, id="read-only", marks=pytest.mark.slow),
    ],
)
async def test_a_card_that_takes_nothing_at_the_start_costs_no_answer(
    bundle: Path, photos: Path, tmp_path: Path, trouble: dict[str, Any], *, used_before: bool
) -> None:
    disk = tmp_path / "disk"
    command = words(bundle, photos, *ALONE, *everything_on(disk, generate(tmp_path / "release.key")))
    with Footing(disk) as footing:
        env = {**os.environ, **footing.env}
        if used_before:
            async with AgentProcess(*command, env=env) as agent:
                assert (await agent.finish())[0] == 0
            assert len(list(read_records(disk / "records/r.jsonl"))) == COUNT
        for name, value in trouble.items():
            setattr(footing, name, value)
        async with AgentProcess(*command, env=env) as agent:
            status, out, err = await agent.finish()
        assert status == 0, err
        assert out.splitlines()[-1].startswith(f"{COUNT} of {COUNT} frames answered; ")
        assert "Traceback" not in err
        assert "records cannot be written" in err
        footing.mend()
        async with AgentProcess(*command, env=env) as agent:
            assert (await agent.finish())[0] == 0
    assert len(list(read_records(disk / "records/r.jsonl"))) == COUNT * (1 + used_before)


async def test_a_wrong_path_is_a_mistake_all_the_same(bundle: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    flags = ("--keep", "all", "--spool", tmp_path / "none/spool.db")
    for more in (flags, ("--records", tmp_path / "file/r.jsonl")):
        async with AgentProcess(*words(bundle, photos, *ALONE, *more)) as agent:
            status, _, err = await agent.finish()
        assert status in {1, 2}
        assert str(tmp_path) in err


async def test_a_clock_that_is_wrong_at_boot_and_put_right_later(bundle: Path, photos: Path, tmp_path: Path) -> None:
    """A board without a battery starts in the past, hears of the time, and is put right once more by an hour."""
    records = tmp_path / "r.jsonl"
    with ServerProcess(bundle) as server, Footing(tmp_path / "disk") as footing:
        footing.clock_s = 86_400 - time.time()
        flags = ("--records", records, "--repeat", "--fps", "40", "--keep", "all", "--spool", tmp_path / "s.db")
        command = words(bundle, photos, *flags, "--server", server.address)
        async with AgentProcess(*command, env={**os.environ, **footing.env}) as agent:
            for wrong_by_s in (None, 0.0, 3600.0, -3600.0):
                footing.clock_s = footing.clock_s if wrong_by_s is None else wrong_by_s
                for _ in range(10):
                    await agent.line()
            agent.process.send_signal(signal.SIGTERM)
            status, _, err = await agent.finish()
    assert (status, err) == (0, "")
    seen = list(read_records(records))
    assert {record.status for record in seen} == {"ok"}
    assert {record.source for record in seen} == {"edge"}
    assert all(0 < record.latency_ms < 600_000 for record in seen)
    years = [datetime.fromisoformat(record.taken).year for record in sorted(seen, key=lambda each: each.sequence)]
    assert (years[0], years[-1]) == (1970, datetime.now().astimezone().year)


async def test_a_clock_in_the_past_keeps_the_server_away_and_no_answer(
    bundle: Path, photos: Path, tmp_path: Path
) -> None:
    """Certificates are not valid yet, so the device answers itself until it hears of the time."""
    async with edge(tls=True, state=tmp_path / "server") as running:
        enrolled(running, Identities.under(tmp_path / "state"), "pole-7")
        flags = ("--state", tmp_path / "state", "--deadline-ms", 20_000, "--repeat", "--fps", "20", "--json")
        command = words(bundle, photos, "--server", running.addresses.grpc, *flags)
        with Footing(tmp_path / "disk") as footing:
            footing.clock_s = 86_400 - time.time()
            async with AgentProcess(*command, env={**os.environ, **footing.env}) as agent:
                for _ in range(10):
                    assert json.loads(await agent.line())["source"] == "local"
                footing.clock_s = 0.0
                while json.loads(await agent.line())["source"] != "edge":
                    pass
                agent.process.send_signal(signal.SIGTERM)
                status, _, _ = await agent.finish()
    assert status == 0
