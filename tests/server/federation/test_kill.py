"""The process of the rounds is killed for good, again and again, while its devices live on."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict

from headwater.protos.flower import Parcel, call, node_id, pack, unpack
from headwater.server.federation.versions import Versions, latest
from headwater.server.mail.doorbell import Doorbell
from headwater.server.mail.mailbox import Mailbox
from headwater.server.mail.records import Device
from tests.server.federation import fleets, toy
from tests.server.federation.killed_rounds import TOLD

_OTHERWISE: dict[str, Any] = {"bundle_id": b"", "agent_version": "test", "seen_unix_ms": 0}
WIDTHS = {"a": 1.0, "b": 0.5, "c": 1.0}
ROOT = Path(__file__).parent.parent.parent.parent


class Devices(threading.Thread):
    """Three devices, answering what is in a mailbox as their server would have them."""

    def __init__(self, state: Path) -> None:
        super().__init__(daemon=True)
        self._state, self._over = state, threading.Event()
        self._contexts = {
            node_id(name): Context(1, node_id(name), {"width": width}, RecordDict(), {})
            for name, width in WIDTHS.items()
        }
        self.calls = 0
        with Mailbox(state) as mailbox:
            for name in WIDTHS:
                mailbox.connected(
                    Device(node_id(name), name, connected=True, capabilities=("federated",), **_OTHERWISE)
                )

    def run(self) -> None:
        with Mailbox(self._state) as mailbox, Doorbell(self._state) as bell:
            mailbox.own_bell = bell
            while not self._over.is_set():
                for node, context in self._contexts.items():
                    self._answer(mailbox, node, context)
                bell.wait(0.2)

    def _answer(self, mailbox: Mailbox, node: int, context: Context) -> None:
        for offer in mailbox.open_offers(node, "message", 10):
            message = unpack(Parcel(offer.envelope, mailbox.blobs.read(offer.sha256)))
            reply = pack(call(toy.app, message, context))
            self.calls += 1
            mailbox.replied(offer.number, node, reply.envelope, mailbox.put(reply.content))

    def stop(self) -> None:
        self._over.set()
        self.join(60)


def _run_until(state: Path, step: str | None) -> str:
    """Run rounds; kill -9 at a step. The last step that was said."""
    command = [sys.executable, "-m", "tests.server.federation.killed_rounds", str(state)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said = line.strip()
            if said == step:
                process.kill()
                break
    assert step is None or said == step
    assert step is not None or process.returncode == 0
    return said


@pytest.mark.slow
def test_killed_in_every_phase_the_rounds_end_with_the_bytes_of_an_undisturbed_run(tmp_path: Path) -> None:
    told = {field: getattr(TOLD, field) for field in ("rounds", "rate", "least", "average", "up", "down")}
    quiet = fleets.run(fleets.strategy(tmp_path / "quiet", fleets.settings(**told)), fleets.grid(WIDTHS))
    state = tmp_path / "state"
    devices = Devices(state)
    devices.start()
    try:
        for step in (
            "after run",
            "after messages of round 1",
            "before version of round 1",
            "before messages of round 2",
            "after collection of round 2",
            "after version of round 2",
        ):
            _run_until(state, step)
        assert _run_until(state, None) == "after ending"
    finally:
        devices.stop()
    learnt = latest(state)
    assert learnt.finished
    assert fleets.bytes_of(learnt.arrays) == fleets.bytes_of(quiet)
    assert learnt.version == Versions(tmp_path / "quiet").load(1, 2).version
    assert devices.calls == 6, "a device did something twice"
