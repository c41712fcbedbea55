"""Installing into an image's root and taking out of it again, with the system's own tools."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path, PurePosixPath

import pytest
from typer.testing import CliRunner

from headwater.compression.bundle import Bundle
from headwater.compression.errors import BundleError, SettingsError, StorageError
from headwater.compression.settings import resolve
from headwater.device.cli import app
from headwater.device.install import service
from headwater.device.install.layout import BUNDLE, CONFIG, DROP_INS, STATE, UNIT, USERS, WANTED, Root
from headwater.device.settings import DeviceSettings
from tests.device.install import image
from tests.device.install.image import PROGRAM, Tools, can_make_users, files

needs_root = pytest.mark.skipif(
    not can_make_users(), reason="a user is made and deleted by root, with systemd-sysusers and userdel"
)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return image.make(tmp_path / "image")


@pytest.fixture
def bundle(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    return tiny_bundle.save(tmp_path / "tiny.zip")


def unit_of(root: Root) -> dict[str, list[str]]:
    """The unit's keys with their values."""
    found: dict[str, list[str]] = {}
    for line in root(UNIT).read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition("=")
        found.setdefault(key, []).append(value)
    return found


@needs_root
def test_what_is_installed_is_taken_out_to_the_last_file(root: Root, bundle: Path) -> None:
    before = files(root)
    words = ["install", "--root", str(root.folder), "--bundle", str(bundle), "--server", "edge.local:50051,b:1"]
    done = CliRunner().invoke(app, [*words, "--fps", "2", "--source", "camera:1", "--name", "pole 7"])
    assert done.exit_code == 0, done.output
    settings = resolve(DeviceSettings, file=root(CONFIG), environment={}).value
    assert (settings.server, settings.fps, settings.source) == (("edge.local:50051", "b:1"), 2.0, "camera:1")
    assert (settings.name, settings.state, settings.wait_for_source) == ("pole 7", STATE, True)
    assert Bundle.load(root(BUNDLE)).id == Bundle.load(bundle).id
    assert root(WANTED).readlink() == UNIT
    assert stat.S_IMODE(root(CONFIG).stat().st_mode) == 0o640
    (group,) = re.findall(r"(?m)^headwater:x:(\d+):", root(Path("/etc/group")).read_text())
    assert (root(CONFIG).stat().st_uid, root(CONFIG).stat().st_gid) == (0, int(group))

    assert (stat.S_IMODE(root(STATE).stat().st_mode), root(STATE).stat().st_gid) == (0o700, int(group))
    (root(STATE) / "device.key").touch(0o600)
    root(DROP_INS).mkdir()
    (root(DROP_INS) / "override.conf").write_text("[Service]\nMemoryMax=1G\n")
    asked = CliRunner().invoke(app, ["uninstall", "--root", str(root.folder)], input="n\n")
    assert asked.exit_code == 1
    assert "the device's key, and frames that no server has yet" in asked.output
    assert root(UNIT).exists()
    done = CliRunner().invoke(app, ["uninstall", "--root", str(root.folder), "--yes"])
    assert done.exit_code == 0, done.output
    assert files(root) == before


def test_state_and_user_stay_where_that_is_wished(root: Root, bundle: Path) -> None:
    tools = Tools(root)
    list(service.install(root, None, bundle, {}, run=tools))
    told = list(service.uninstall(root, keep_state=True, run=tools))
    assert root(STATE).exists()
    assert not root(UNIT).exists()
    assert [command[0] for command in tools.asked] == ["systemd-sysusers"]
    assert f"removed {root(USERS)}" in told


def test_a_second_install_leaves_the_settings_and_fits_the_unit_to_them(root: Root, bundle: Path) -> None:
    tools = Tools(root)
    list(service.install(root, None, bundle, {"server": ["a:1"]}, run=tools))
    edited = root(CONFIG).read_text() + 'train_data = "/data/labelled"\nsource = "http://cam/1"\nrecords = "/data/r"\n'
    root(CONFIG).write_text(edited)
    told = list(service.install(root, None, None, {}, run=tools))
    assert f"left {root(CONFIG)}" in told
    assert root(CONFIG).read_text() == edited
    unit = unit_of(root)
    assert unit["MemoryDenyWriteExecute"] == ["no"]
    assert unit["PrivateDevices"] == ["yes"]
    assert unit["ReadWritePaths"] == ["-/data"]
    assert "DeviceAllow" not in unit
    assert Bundle.load(root(BUNDLE)).id == Bundle.load(bundle).id


def test_a_camera_is_the_only_device(root: Root, bundle: Path) -> None:
    list(service.install(root, None, bundle, {}, run=Tools(root)))
    unit = unit_of(root)
    assert unit["DeviceAllow"] == ["char-video4linux rw", "char-media rw"]
    assert (unit["User"], unit["SupplementaryGroups"], unit["DevicePolicy"]) == (["headwater"], ["video"], ["closed"])
    assert (unit["Type"], unit["WatchdogSec"], unit["Restart"]) == (["notify"], ["60"], ["always"])
    assert (unit["StateDirectory"], unit["StateDirectoryMode"]) == (["headwater"], ["0700"])


@pytest.mark.parametrize("folder", [False, True])
def test_a_newer_bundle_takes_the_old_one_s_place(
    root: Root, bundle: Path, tmp_path: Path, tiny_bundle: Bundle, *, folder: bool
) -> None:
    list(service.install(root, None, bundle, {}, run=Tools(root)))
    other = tiny_bundle.with_file("more.txt", b"x").save(tmp_path / ("other" if folder else "other.zip"))
    for path in (other, *other.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    list(service.install(root, None, other, {}, run=Tools(root)))
    assert Bundle.load(root(BUNDLE)).id == Bundle.load(other).id
    for path in (root(BUNDLE), *root(BUNDLE).rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("/opt/none/headwater", "there is no /opt/none/headwater in .*--program"),
        ("bin/headwater", "there is no bin/headwater"),
        ("/home/pi/hw/bin/headwater", r"sees nothing below /home; install it elsewhere, such as /opt/headwater "),
    ],
)
def test_a_program_that_the_service_cannot_run(root: Root, bundle: Path, program: str, words: str) -> None:
    root(Path("/home/pi/hw/bin")).mkdir(parents=True)
    root(Path("/home/pi/hw/bin/headwater")).touch()
    before = files(root)
    with pytest.raises(SettingsError, match=words):
        list(service.install(root, PurePosixPath(program), bundle, {}, run=Tools(root)))
    assert files(root) == before


def test_what_is_wrong_is_said_before_anything_is_written(root: Root, bundle: Path, tmp_path: Path) -> None:
    before = files(root)
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(bundle.read_bytes()[:-100])
    with pytest.raises(BundleError):
        list(service.install(root, None, damaged, {}, run=Tools(root)))
    with pytest.raises(SettingsError, match="must be host:port"):
        list(service.install(root, None, bundle, {"server": ["edge local"]}, run=Tools(root)))
    with pytest.raises(SettingsError, match="give --bundle PATH"):
        list(service.install(root, None, None, {}, run=Tools(root)))
    with pytest.raises(SettingsError, match="no folder; --root names"):
        list(service.install(Root(tmp_path / "nowhere"), None, bundle, {}, run=Tools(root)))
    assert files(root) == before


def test_settings_that_are_no_toml_any_more(root: Root, bundle: Path) -> None:
    list(service.install(root, None, bundle, {}, run=Tools(root)))
    root(CONFIG).write_text("[device\n")
    with pytest.raises(SettingsError, match=r"no TOML: .*mend it, or move it away"):
        list(service.install(root, None, bundle, {}, run=Tools(root)))


def test_a_tool_that_fails_is_named_with_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"^ls /no/such failed: .*ls: .*No such file"):
        service.run(["ls", "/no/such"])
    with pytest.raises(SettingsError, match="no-such-tool is not here"):
        service.run(["no-such-tool"])
    service.run(["true", str(tmp_path)])


def test_this_system_needs_systemd_and_root(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SettingsError, match="run it with sudo"):
        list(service.install(Root(), None, bundle, {}))


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
@pytest.mark.parametrize(("source", "most"), [("camera", 17), ("http://cam.local/1", 15)])
def test_systemd_finds_no_fault_with_the_unit_and_likes_it(root: Root, bundle: Path, source: str, most: int) -> None:
    """Its exposure level, 0 to 10 (here times ten): below 2 it says OK."""
    list(service.install(root, None, bundle, {"source": source}, run=Tools(root)))
    unit = root(UNIT)
    analyze = ("systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={most}", str(unit))
    rated = subprocess.run(analyze, capture_output=True, text=True, check=False)
    assert rated.returncode == 0, rated.stdout
    assert "OK" in rated.stdout.splitlines()[-1]
    own = unit.with_name("headwater.service")
    own.write_text(own.read_text().replace(str(PROGRAM), "/bin/true"))  # the image's program is not in this system
    checked = subprocess.run(
        ("systemd-analyze", "verify", "--recursive-errors=no", str(own)), capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")
