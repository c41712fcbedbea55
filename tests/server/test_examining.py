"""A server's state that is well, and states in which one thing is broken: each is found, with what to do."""

import socket
import time
from pathlib import Path

import pytest

from headwater.compression.doctor.finding import Findings
from headwater.compression.release import Signer
from headwater.server import examining
from headwater.server.access.authority import Authority
from headwater.server.access.register import Register
from headwater.server.rollout.canary import Rules
from headwater.server.rollout.gate import Bounds
from headwater.server.rollout.publish import publish
from headwater.server.rollout.versions import Versions
from tests.server.access.material import enrolled
from tests.versions import KEY, version, write_keys

ALL, BOUNDS = Rules(share=1.0), Bounds(100.0, 10_000.0)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A server's folder with an authority, a device and a release."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    authority = Authority.open(folder)
    with Register.open(folder) as register:
        enrolled(register, authority, "cam-1", days=300)
    publish(folder, version(1), Signer(KEY), ALL, BOUNDS, served=version(0))
    return folder


def look(state: Path, **flags: object) -> Findings:
    findings = Findings()
    examining.examine(findings, {"state": state, **flags})
    return findings


def wrong(findings: Findings, check: str) -> str:
    """What is said of the one thing that is broken, but for the server, which does not run."""
    bad = [each for each in findings.all if each.state != "well" and each.check != "link"]
    assert {each.check for each in bad} == {check}, bad
    return " ".join(f"{each.state}: {each.found} -> {each.remedy}" for each in bad)


def test_a_server_that_is_well(state: Path, tmp_path: Path) -> None:
    saved = version(1).save(tmp_path / "bundle.zip")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        (tmp_path / "h.toml").write_text(f'[server]\nlisten = "0.0.0.0:{listening.getsockname()[1]}"\ntls = true\n')
        findings = Findings()
        examining.examine(findings, {"state": state, "bundle": saved}, tmp_path / "h.toml")
    assert findings.state == "well", findings.all
    assert {each.check for each in findings.all} == {
        *("permissions", "certificate", "release", "bundle", "link", "space")
    }


def test_no_server_runs(state: Path) -> None:
    (found,) = [each for each in look(state).all if each.check == "link"]
    assert (found.state, "headwater server" in found.remedy) == ("doubtful", True)


def test_a_state_that_is_not_there(tmp_path: Path) -> None:
    assert "is not there" in wrong(look(tmp_path / "none"), "permissions")


def test_a_state_that_others_can_change(state: Path) -> None:
    state.chmod(0o777)
    assert "(mode 777) -> `chmod go-w" in wrong(look(state), "permissions")


def test_an_authority_s_key_that_others_can_read(state: Path) -> None:
    (state / "access" / "ca.key").chmod(0o644)
    assert "chmod 600" in wrong(look(state), "certificate")


def test_half_an_authority(state: Path) -> None:
    (state / "access" / "ca.key").unlink()
    assert "restore both files from a backup" in wrong(look(state), "certificate")


def test_a_damaged_authority(state: Path) -> None:
    (state / "access" / "ca.pem").write_text("rot")
    assert "ca.pem is damaged" in wrong(look(state), "certificate")


def test_a_signing_key_that_others_can_read(state: Path, tmp_path: Path) -> None:
    private, _ = write_keys(tmp_path)
    config = tmp_path / "h.toml"
    config.write_text(f'[rollout]\nkey = "{private}"\n')
    findings = Findings()
    examining.examine(findings, {"state": state}, config)
    assert any("signs releases" in each.found for each in findings.all)
    private.chmod(0o604)
    findings = Findings()
    examining.examine(findings, {"state": state}, config)
    assert "chmod 600" in wrong(findings, "permissions")


@pytest.mark.parametrize(
    ("days", "state_of", "text"), [(1e-9, "wrong", "no device takes it up any more"), (7, "doubtful", "ends at")]
)
def test_a_release_that_ends(tmp_path: Path, days: float, state_of: str, text: str) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    publish(tmp_path / "state", version(1), Signer(KEY, valid_days=days), ALL, BOUNDS)
    said = wrong(look(tmp_path / "state"), "release")
    assert said.startswith(f"{state_of}: that of tiny {version(1).short_id}")
    assert text in said
    assert "headwater server refresh" in said


def test_a_released_bundle_that_rotted(state: Path) -> None:
    with Versions(state) as versions:
        (versions.path(version(1).id) / "head_1.onnx").write_bytes(b"rot")
    assert "publish another one" in wrong(look(state), "bundle")


def test_devices_whose_certificates_end(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority.open(state)
    with Register.open(state) as register:
        for number in range(7):
            enrolled(register, authority, f"soon-{number}", days=3)
    assert "soon-0, soon-1, soon-2, soon-3, soon-4 and 2 more end within 14 days" in wrong(look(state), "certificate")
    later = time.time() + 5 * 86400
    monkeypatch.setattr(time, "time", lambda: later)
    said = wrong(look(state), "certificate")
    assert "soon-4 and 2 more have ended" in said
    assert "headwater server devices token" in said
