"""A device that is well, and devices on which one thing is broken: each is found, with what to do."""

import asyncio
import dataclasses
import json
import os
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import AsyncMock, MagicMock

import pytest
from PIL import Image

from headwater.compression.bundle import Bundle
from headwater.compression.doctor.finding import Findings
from headwater.compression.trust import KeyList
from headwater.device import examining
from headwater.device.access.identity import Identities, Identity
from headwater.device.rollout.bundles import BundleStore
from headwater.protos import edge_pb2 as pb
from headwater.server.access.authority import Authority
from tests.server.access.material import member
from tests.server.edges import edge
from tests.versions import KEY, PUBLIC, SIGNER, version, write_keys


@pytest.fixture
def device(tmp_path: Path) -> dict[str, object]:
    """Flags of a device whose files are as they should be."""
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "photos").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "photos" / "one.png")
    version(0).save(tmp_path / "bundle.zip")
    return {
        "state": tmp_path / "state",
        "bundle": tmp_path / "bundle.zip",
        "source": str(tmp_path / "photos"),
        "trusted_key": write_keys(tmp_path)[1],
        "server": "127.0.0.1:1",
    }


def look(flags: dict[str, object]) -> Findings:
    findings = Findings()
    examining.examine(findings, flags)
    return findings


def wrong(findings: Findings, check: str, *, but: tuple[str, ...] = ("link",)) -> str:
    """What is said of the one thing that is broken."""
    bad = [each for each in findings.all if each.state != "well" and each.check not in but]
    assert {each.check for each in bad} == {check}, bad
    return " ".join(f"{each.state}: {each.found} -> {each.remedy}" for each in bad)


async def test_a_device_that_is_well(device: dict[str, object]) -> None:
    async with edge(version(0)) as running:
        findings = await asyncio.to_thread(look, {**device, "server": running.addresses.grpc})
    assert findings.state == "well", findings.all
    assert {each.check for each in findings.all} == {
        *("permissions", "bundle", "release", "certificate", "link", "camera", "space")
    }


async def test_a_server_that_does_not_serve_its_bundle(device: dict[str, object]) -> None:
    async with edge(version(1)) as running:
        findings = await asyncio.to_thread(look, {**device, "server": running.addresses.grpc})
    said = wrong(findings, "bundle", but=())
    assert f"does not serve {version(0).short_id}; it serves tiny {version(1).short_id}" in said


@pytest.mark.parametrize(
    ("off_s", "text"), [(7200, "wrong: it is 7200 s later"), (-60, "doubtful: it is 60 s earlier")]
)
async def test_clocks_that_are_apart(
    device: dict[str, object], monkeypatch: pytest.MonkeyPatch, off_s: float, text: str
) -> None:
    now_s = time.time()
    async with edge(version(0)) as running:
        description = await running.stub.Describe(pb.DescribeRequest())
        assert abs(description.unix_ms / 1e3 - time.time()) < 60
        monkeypatch.setattr(examining, "describe_server", AsyncMock(return_value=description))
        description.unix_ms = round((now_s - off_s) * 1e3)
        monkeypatch.setattr(examining, "time", MagicMock(time=lambda: now_s, monotonic=time.monotonic))
        findings = await asyncio.to_thread(look, {**device, "server": running.addresses.grpc})
    assert text in wrong(findings, "clock", but=())


def test_a_server_of_another_version_that_is_stopping() -> None:
    findings = Findings()
    examining._serves(findings, "edge:1", pb.Description(server_version="0.0.1", draining=True), b"")
    assert [(each.check, each.state) for each in findings.all] == [("versions", "doubtful"), ("link", "doubtful")]


def test_nobody_listens(device: dict[str, object]) -> None:
    said = wrong(look(device), "link", but=())
    assert "nobody listens at 127.0.0.1:1" in said
    assert "headwater server" in said


def test_a_name_that_nobody_knows(device: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> socket.socket:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unknown)
    findings = look({**device, "server": "no.such.host:50051"})
    assert "the name no.such.host is not known here" in wrong(findings, "link", but=("certificate",))


def test_a_server_that_speaks_something_else(device: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examining, "CONNECT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        findings = look({**device, "server": f"127.0.0.1:{silent.getsockname()[1]}"})
    assert "answer" in wrong(findings, "link", but=())


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_state_that_others_can_change(device: dict[str, object], tmp_path: Path, mode: int) -> None:
    (tmp_path / "state").chmod(mode)
    assert f"(mode {mode:o}) -> `chmod go-w" in wrong(look(device), "permissions")


def test_a_trusted_key_that_others_can_replace(device: dict[str, object]) -> None:
    path = device["trusted_key"]
    assert isinstance(path, Path)
    path.chmod(0o666)
    assert "open to other users (mode 666); run `chmod go-w" in wrong(
        look(device), "permissions", but=("link", "release")
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_spool_that_cannot_be_written(device: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o500)
    assert "cannot be written" in wrong(look({**device, "spool": tmp_path / "theirs" / "spool.db"}), "permissions")


def test_no_state_yet(device: dict[str, object], tmp_path: Path) -> None:
    assert "is not there yet" in wrong(look({**device, "state": tmp_path / "new"}), "permissions")


def test_a_bundle_that_rotted(device: dict[str, object], tmp_path: Path) -> None:
    folder = version(0).save(tmp_path / "bundle")
    (folder / "head_1.onnx").write_bytes(b"rot")
    assert "head_1.onnx" in wrong(look({**device, "bundle": folder}), "bundle")


def follow(state: Path, bundle: Bundle, statement: bytes) -> BundleStore:
    store = BundleStore.open(state / "bundles", PUBLIC, version(0))
    store.switch(store.judge(statement), bundle)
    store.close()
    return store


def test_a_release_that_nobody_vouches_for_any_more(device: dict[str, object], tmp_path: Path) -> None:
    store = follow(tmp_path / "state", version(1), SIGNER.release(5, version(1)))
    assert look(device).state == "wrong", "for nobody listens"
    path = store.folder / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "expires": 1_700_000_000}))
    said = wrong(look(device), "release")
    assert said.startswith("doubtful: 5 ended at 2023-11-14 22:13 UTC, and none came since")
    assert "somebody keeps releases from this device" in said


def test_a_release_that_was_refused(device: dict[str, object], tmp_path: Path) -> None:
    store = BundleStore.open(tmp_path / "state" / "bundles", PUBLIC, version(0))
    store.refuse(store.judge(SIGNER.release(5, version(1))), "the golden input is off by 5")
    store.close()
    assert "5 was refused: the golden input is off by 5" in wrong(look(device), "release")


def test_keys_whose_time_is_over(device: dict[str, object], tmp_path: Path) -> None:
    follow(tmp_path / "state", version(1), SIGNER.release(5, version(1)))
    keys = KeyList(1, 1_700_000_000, (PUBLIC,), (PUBLIC,)).signed(KEY)
    (tmp_path / "state" / "bundles" / "trusted").write_bytes(keys)
    assert "list 1 of keys ended at 2023-11-14" in wrong(look(device), "release")


def test_what_the_agent_noted_is_damaged(device: dict[str, object], tmp_path: Path) -> None:
    follow(tmp_path / "state", version(1), SIGNER.release(5, version(1))).folder.joinpath("state.json").write_text("{")
    assert "state.json cannot be read" in wrong(look(device), "release", but=("link", "bundle"))


def test_a_camera_that_is_not_there(device: dict[str, object], tmp_path: Path) -> None:
    said = wrong(look({**device, "source": "/dev/video77"}), "camera")
    assert "usermod -aG video" in said
    (tmp_path / "empty").mkdir()
    assert "no files" in wrong(look({**device, "source": str(tmp_path / "empty")}), "camera")


def test_a_camera_that_hangs(device: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    let_go = threading.Event()
    source = MagicMock()
    source.shots.side_effect = lambda: let_go.wait(60) and iter(())
    monkeypatch.setattr(examining, "PICTURE_S", 0.05)
    monkeypatch.setattr(examining, "open_source", lambda _: source)
    found = look(device)
    let_go.set()
    assert "gave no picture in 0.05 s" in wrong(found, "camera")


# ---------------------------------------------------------------- certificates


def enrolled(tmp_path: Path, expires: datetime, renew: float) -> Identity:
    authority = Authority.open(tmp_path / "server")
    days = 30.0
    one = member(authority, "cam", days, expires - timedelta(days=days))
    identity = Identity(
        "cam", ("edge.local:50051",), renew, authority.pem.decode(), one.issued.pem.decode(), one.pair.key.decode()
    )
    Identities.under(tmp_path / "state").save(identity)
    return identity


@pytest.mark.parametrize(
    ("days", "renewed_days_ago", "state", "text"),
    [
        (20, -5, "well", "holds until"),
        (20, 10, "doubtful", "was not renewed in its time"),
        (3, 1, "doubtful", "was not renewed in its time"),
        (-1, 20, "wrong", "ended at"),
    ],
)
def test_a_certificate_that_ends(
    device: dict[str, object], tmp_path: Path, days: float, renewed_days_ago: float, state: str, text: str
) -> None:
    enrolled(tmp_path, datetime.now(UTC) + timedelta(days=days), time.time() - renewed_days_ago * 86400)
    (found,) = [each for each in look(device).all if each.check == "certificate"]
    assert (found.state, text in found.found) == (state, True)


def test_a_key_that_others_can_read(device: dict[str, object], tmp_path: Path) -> None:
    identity = enrolled(tmp_path, datetime.now(UTC) + timedelta(days=20), time.time() + 1e6)
    (tmp_path / "state" / "identity" / f"{identity.name}.json").chmod(0o644)
    assert "chmod 600" in wrong(look(device), "certificate")


def test_a_device_that_was_never_enrolled(device: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examining, "_reached", lambda *_: False)
    said = wrong(look({**device, "server": "edge.local:50051"}), "certificate")
    assert "is not enrolled at edge.local:50051" in said
    assert "headwater device enroll" in said


def test_flags_that_are_no_flags() -> None:
    with pytest.raises(Exception, match="server is"):
        look({"server": "nonsense"})
    assert dataclasses.is_dataclass(Findings)
