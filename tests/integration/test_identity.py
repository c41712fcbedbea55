"""A device's life at a server with TLS, all of it real processes: token, enrolment, frames, renewal, revocation."""

from __future__ import annotations

import asyncio
import json
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from headwater.compression.bundle import Bundle
from headwater.device import read_records
from headwater.device.access.identity import Identities
from headwater.server.access.caller import read
from headwater.server.access.register import Register
from tests import tiny
from tests.integration.processes import END_TIMEOUT_S, HEADWATER, AgentProcess, ServerProcess

LONG_S = 240
PHOTOS = 12


class Rig:
    """A server with TLS on loopback, its state, pictures, and a folder for devices."""

    def __init__(self, folder: Path, bundle: Bundle) -> None:
        self.folder = folder
        self.state = folder / "server"
        self.bundle = bundle.save(folder / "tiny.zip")
        self.photos = folder / "photos"
        self.photos.mkdir()
        for seed in range(PHOTOS):
            Image.fromarray(tiny.image(seed)[0]).save(self.photos / f"{seed:03}.png")
        self.server = ServerProcess(
            self.bundle, more=("--tls", "--state", str(self.state), "--enrol", "127.0.0.1:0", "--log-level", "error")
        )

    def run(self, *words: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*HEADWATER, *words], input=typed, capture_output=True, text=True, timeout=END_TIMEOUT_S, check=False
        )

    def devices(self, *words: str) -> str:
        done = self.run("server", "devices", *words, "--state", str(self.state))
        assert done.returncode == 0, done.stderr
        return done.stdout

    def listed(self) -> dict[str, dict[str, object]]:
        lines = map(json.loads, self.devices("ls", "--json").splitlines())
        return {line["name"]: line for line in lines}

    def serial(self) -> str:
        """Of the certificate that the one device uses."""
        with Register.open(self.state) as register:
            (entry,) = register.entries()
        return entry.serial

    def enrol(self, device: str, *token: str) -> str:
        """What the device's command printed; the token goes by its standard input."""
        text = self.devices("token", *token)
        words = ("device", "enroll", "--server", self.server.address, "--name", device)
        done = self.run(*words, "--state", str(self.folder / device), typed=text)
        assert done.returncode == 0, done.stderr
        assert text.strip() not in done.stdout + done.stderr
        return done.stdout

    def once(self, device: str) -> subprocess.CompletedProcess[str]:
        words = ("--bundle", str(self.bundle), "--server", self.server.address, "--state", str(self.folder / device))
        return self.run("device", *words, "--once", str(self.photos / "004.png"), "--json")

    def agent(self, device: str) -> AgentProcess:
        """One that answers by itself where the server does not."""
        words = {
            "--bundle": self.bundle,
            "--server": self.server.address,
            "--source": self.photos,
            "--records": self.folder / f"{device}.jsonl",
            "--retry-s": "0.2",
            "--state": self.folder / device,
            "--tasks": "shape",
            "--deadline-ms": "5000",
            "--width": "1",
            "--log-level": "info",
        }
        return AgentProcess(*(str(word) for pair in words.items() for word in pair), "--repeat", "--json")

    def identities(self, device: str) -> Identities:
        return Identities.under(self.folder / device)

    def age(self, device: str) -> None:
        """Have two thirds of the certificate's life be over."""
        (path,) = self.identities(device).folder.glob("*.json")
        path.write_text(json.dumps({**json.loads(path.read_text()), "renew": 1.0}))


@pytest.fixture
def rig(tmp_path: Path, tiny_bundle: Bundle) -> Iterator[Rig]:
    made = Rig(tmp_path, tiny_bundle)
    with made.server:
        yield made


async def answers(agent: AgentProcess, source: str, also: Callable[[], bool] = lambda: True) -> None:
    """Read what the agent prints until it was answered from there and something else holds."""
    async with asyncio.timeout(LONG_S):
        while json.loads(await agent.line()).get("source") != source or not also():
            pass


@pytest.mark.slow
async def test_a_device_s_life(rig: Rig) -> None:
    assert f"enrolled as pole-7 with {rig.server.address} until" in rig.enrol("raspberrypi", "--name", "pole-7")
    (file,) = rig.identities("raspberrypi").folder.glob("*.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (first,) = rig.identities("raspberrypi").all()
    rig.age("raspberrypi")

    def renewed() -> bool:
        (now,) = rig.identities("raspberrypi").all()
        return now.certificate != first.certificate and now.key != first.key

    async with rig.agent("raspberrypi") as agent:
        await answers(agent, "edge", renewed)
        await answers(
            agent, "edge", lambda: rig.listed()["pole-7"]["serial"] != read(first.certificate.encode()).serial
        )
        assert "pole-7 is revoked" in rig.devices("revoke", "pole-7")
        await answers(agent, "local")
        refused = rig.once("raspberrypi")
        assert (refused.returncode, "revoked" in refused.stderr) == (1, True)
        assert rig.listed()["pole-7"]["standing"] == "revoked"
        rig.enrol("raspberrypi", "--name", "pole-7")
        await answers(agent, "edge")
        agent.process.send_signal(signal.SIGTERM)
        status, _, err = await agent.finish()
    assert status == 0
    assert "the certificate of pole-7 was renewed" in err
    assert "the certificate of pole-7 is refused: it was revoked" in err
    records = list(read_records(rig.folder / "raspberrypi.jsonl"))
    names = [record.name for record in sorted(records, key=lambda record: record.taken)]
    assert names == [f"{number % PHOTOS:03}.png" for number in range(len(names))], "a picture has no answer, or two"
    assert {record.status for record in records} == {"ok"}
    assert {record["shape"].label == tiny.TASKS[0].labels[int(record.name[:3]) % 3] for record in records} == {True}
    answered = json.loads(rig.once("raspberrypi").stdout)
    assert answered["source"] == "edge"


@pytest.mark.slow
async def test_a_device_that_was_not_enrolled_gets_nothing_and_is_told_why(rig: Rig) -> None:
    refused = rig.once("stranger")
    assert refused.returncode == 1
    assert "Does it want a certificate" in refused.stderr
