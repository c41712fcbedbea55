"""What can be wrong with a machine: a clock in the past, an old package, a full or read-only disk, heat and power."""

import os
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from headwater.compression.doctor import machine
from headwater.compression.doctor.finding import Finding, Findings


@pytest.fixture
def findings() -> Findings:
    return Findings()


def only(findings: Findings) -> Finding:
    (finding,) = findings.all
    return finding


def test_a_board_that_woke_up_in_the_past(findings: Findings) -> None:
    machine.clock(findings, lambda: 0.0, lambda: True)
    assert only(findings).state == "wrong"
    assert "it is 1970-01-01 00:00:00 UTC here" in only(findings).found
    assert "timedatectl" in only(findings).remedy


@pytest.mark.parametrize(("kept", "state"), [(True, "well"), (None, "well"), (False, "doubtful")])
def test_a_clock_that_nobody_keeps(findings: Findings, *, kept: bool | None, state: str) -> None:
    machine.clock(findings, lambda: 2e9, lambda: kept)
    assert only(findings).state == state


def test_the_kernel_is_asked() -> None:
    assert machine.kept_by_ntp() in {True, False, None}


def test_what_is_installed_here_will_do(findings: Findings) -> None:
    machine.versions(findings)
    assert only(findings).state == "well"
    assert metadata.version("headwater") in only(findings).found


def test_a_package_that_is_too_old_or_missing(findings: Findings, monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "pillow":
            raise metadata.PackageNotFoundError(name)
        return "1.2" if name == "grpcio" else "7.1" if name == "protobuf" else real(name)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(machine, "find_spec", lambda _: None)
    machine.versions(findings)
    lacking, slow = findings.all
    assert lacking.state == "wrong"
    assert all(word in lacking.found for word in ("grpcio>=", "pillow>=", "protobuf<7"))
    assert "numpy" not in lacking.found
    assert (slow.state, "200 times" in slow.found) == ("doubtful", True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 2 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_nearly_full(findings: Findings, small_disk: Path) -> None:
    machine.space(findings, small_disk / "state" / "to" / "come")
    assert only(findings).state == "wrong"
    assert "2 MiB free" in only(findings).found
    assert f"du -xh {small_disk}" in only(findings).remedy


def test_a_card_that_became_read_only(findings: Findings, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    machine.space(findings, small_disk)
    assert only(findings).state == "wrong"
    assert "read-only" in only(findings).found


@pytest.mark.parametrize(
    ("free", "files", "state", "found"),
    [
        (1 << 30, 1_000_000, "well", "1,024 MiB free"),
        (100 << 20, 1_000_000, "doubtful", "100 MiB free"),
        (1 << 20, 1_000_000, "wrong", "1 MiB free"),
        (1 << 30, 12, "wrong", "room for 12 more files"),
    ],
)
def test_how_much_room_is_little(
    findings: Findings, tmp_path: Path, free: int, files: int, state: str, found: str
) -> None:
    def statvfs(_: Path) -> os.statvfs_result:
        return os.statvfs_result((4096, 4096, 1 << 20, free // 4096, free // 4096, 1 << 20, files, files, 0, 255))

    machine.space(findings, tmp_path, statvfs)
    assert (only(findings).state, found in only(findings).found) == (state, True)


def board(root: Path, *, flags: str | None = None, degrees: float | None = None, governor: str | None = None) -> Path:
    """The files in /sys by which a Raspberry Pi tells of itself."""
    for path, text in (
        ("sys/devices/platform/soc/soc:firmware/get_throttled", flags),
        ("sys/class/thermal/thermal_zone0/temp", None if degrees is None else str(int(degrees * 1e3))),
        ("sys/devices/system/cpu/cpufreq/policy0/scaling_governor", governor),
    ):
        if text is not None:
            (root / path).parent.mkdir(parents=True)
            (root / path).write_text(f"{text}\n")
    return root


@pytest.mark.parametrize(
    ("told", "state", "found"),
    [
        ({}, "well", "nothing slows"),
        ({"flags": "0"}, "well", "nothing slows"),
        ({"flags": "50005"}, "wrong", "now the supply voltage is too low and it is throttled"),
        ({"flags": "50000"}, "doubtful", "once so that the supply voltage is too low and it is throttled"),
        ({"flags": "80008"}, "wrong", "now it is at its limit of heat"),
        ({"degrees": 61.0, "governor": "ondemand"}, "well", "nothing slows"),
        ({"degrees": 77.4}, "doubtful", "77 degrees"),
        ({"degrees": 84.0}, "wrong", "84 degrees"),
        ({"governor": "powersave"}, "doubtful", "kept at their slowest"),
    ],
)
def test_power_and_heat(findings: Findings, tmp_path: Path, told: dict[str, str], state: str, found: str) -> None:
    machine.throttling(findings, board(tmp_path, **told))  # type: ignore[arg-type]
    assert (only(findings).state, only(findings).found) == (state, only(findings).found)
    assert found in only(findings).found


def test_the_firmware_s_own_tool_is_asked_where_the_kernel_does_not_tell(findings: Findings, tmp_path: Path) -> None:
    tool = tmp_path / "usr" / "bin" / "vcgencmd"
    tool.parent.mkdir(parents=True)
    tool.write_text("#!/bin/sh\necho throttled=0x1\n")
    tool.chmod(0o755)
    machine.throttling(findings, tmp_path)
    assert "now the supply voltage is too low" in only(findings).found


def test_a_zone_that_is_switched_off_is_passed_over(findings: Findings, tmp_path: Path) -> None:
    (board(tmp_path, degrees=20) / "sys/class/thermal/thermal_zone0/temp").write_text("")
    machine.throttling(findings, tmp_path)
    assert only(findings).state == "well"


def test_nothing_is_complained_of_without_a_remedy() -> None:
    with pytest.raises(AssertionError):
        Finding("clock", "wrong", "it stands")
    with pytest.raises(AssertionError):
        Finding("clock", "well", "it goes", "stop it")


def test_the_worst_counts(findings: Findings) -> None:
    assert findings.state == "well"
    findings.doubtful("clock", "it is odd", "look at it")
    assert findings.state == "doubtful"
    findings.wrong("clock", "it stands", "wind it up")
    findings.well("space", "much")
    assert findings.state == "wrong"
