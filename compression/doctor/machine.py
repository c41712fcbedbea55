"""What can be wrong with any machine: its clock, its packages, its disk, its power and its heat."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headwater.compression.doctor.finding import Findings

NEVER_BEFORE = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
"""This version did not exist then."""
LEAST_BYTES, SOME_BYTES = 16 << 20, 256 << 20
"""Of free disk: nothing is fetched with less than the first; with less than the second it will soon be so."""
LEAST_FILES = 1000
HOT_C, TOO_HOT_C = 75.0, 82.0
"""A Raspberry Pi slows down at 80 to 85 degrees."""
_TIME_ERROR = 5  # of adjtimex(2): nobody keeps the clock
_POWER = {
    0: "the supply voltage is too low",
    1: "its clock is capped",
    2: "it is throttled",
    3: "it is at its limit of heat",
}


def kept_by_ntp() -> bool | None:
    """Whether the kernel takes its clock for synchronised; None where it does not say."""
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))  # a struct timex of zeros: only reads
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


def clock(
    findings: Findings, now: Callable[[], float] = time.time, kept: Callable[[], bool | None] = kept_by_ntp
) -> None:
    """Look whether the clock is sane, and whether somebody keeps it."""
    here = f"{datetime.fromtimestamp(now(), UTC):%Y-%m-%d %H:%M:%S} UTC"
    if now() < NEVER_BEFORE:
        findings.wrong(
            "clock",
            f"it is {here} here, before this software was made",
            "set it: `timedatectl set-ntp true` with a network, `date -s` without; a board without a battery for its "
            "clock starts in the past (docs/doctor.md)",
        )
        return
    if kept() is False:
        findings.doubtful(
            "clock",
            f"it is {here} here, and nobody keeps the clock",
            "`timedatectl set-ntp true`, or install chrony; `timedatectl` shows whether it works",
        )
        return
    findings.well("clock", f"it is {here} here")


def versions(findings: Findings) -> None:
    """Look whether what is needed is installed, in versions that will do."""
    own = metadata.version("headwater")
    lacking = [text for text in metadata.requires("headwater") or () if "extra ==" not in text and not _met(text)]
    if lacking:
        findings.wrong(
            "versions", f"headwater {own} lacks {', '.join(lacking)}", f"`{sys.executable} -m pip install -U headwater`"
        )
    if find_spec("headwater.compression._rans"):
        python = ".".join(map(str, sys.version_info[:3]))
        findings.well("versions", f"headwater {own}, Python {python}, with the coder in C")
        return
    findings.doubtful(
        "versions",
        f"headwater {own} has no coder in C here; the one in Python takes 200 times as long",
        "install a C compiler (`apt-get install gcc python3-dev`) and headwater again, or a wheel for this machine",
    )


def _met(requirement: str) -> bool:
    found = re.match(r"([\w.-]+)\s*(.*)", requirement)
    assert found is not None, requirement
    try:
        have = _numbers(metadata.version(found[1]))
    except metadata.PackageNotFoundError:
        return False
    bounds = re.findall(r"(>=|<)\s*([\d.]+)", found[2])
    return all(have >= _numbers(bound) if sign == ">=" else have < _numbers(bound) for sign, bound in bounds)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def space(findings: Findings, folder: Path, statvfs: Callable[[Path], os.statvfs_result] = os.statvfs) -> None:
    """Look whether a folder's disk takes more."""
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    disk = statvfs(there)
    free = disk.f_bavail * disk.f_frsize
    said = f"{folder}: {free / (1 << 20):,.0f} MiB free"
    tidy = f"see what takes it, `du -xh {there} | sort -h | tail`; old logs go with `journalctl --vacuum-size=50M`"
    if disk.f_flag & os.ST_RDONLY:
        findings.wrong(
            "space",
            f"{folder} is on a file system that is read-only",
            "a card that fails is mounted so: `dmesg | grep -i 'I/O error'`; copy what is on it, and replace it",
        )
    elif free < LEAST_BYTES:
        findings.wrong("space", said, tidy)
    elif disk.f_files and disk.f_favail < LEAST_FILES:
        findings.wrong("space", f"{folder}: room for {disk.f_favail} more files", tidy)
    elif free < SOME_BYTES:
        findings.doubtful("space", said, tidy)
    else:
        findings.well("space", said)


def throttling(findings: Findings, root: Path = Path("/")) -> None:
    """Look whether power or heat slow the processor down; ``root``: where /sys is."""
    before = len(findings.all)
    if (flags := _power_flags(root)) is not None:
        _power(findings, flags)
    _heat(findings, max(_degrees(root), default=None))
    if slow := [path for path in root.glob("sys/devices/system/cpu/cpufreq/policy*/scaling_governor") if _saves(path)]:
        findings.doubtful(
            "throttling",
            f"{len(slow)} of its clocks are kept at their slowest (governor powersave)",
            f"`echo ondemand | sudo tee {slow[0]}`, and the same in the system's configuration",
        )
    if len(findings.all) == before:
        findings.well("throttling", "nothing slows the processor down that this machine tells of")


def _power(findings: Findings, flags: int) -> None:
    now = [text for bit, text in _POWER.items() if flags >> bit & 1]
    been = [text for bit, text in _POWER.items() if flags >> (bit + 16) & 1]
    remedy = "use the board's own power supply and a short cable, and feed cameras and disks by themselves; cool it"
    if now:
        findings.wrong("throttling", f"the board says that now {' and '.join(now)}", remedy)
    elif been:
        findings.doubtful("throttling", f"since the board started it was once so that {' and '.join(been)}", remedy)


def _heat(findings: Findings, degrees: float | None) -> None:
    remedy = "give it air, a heat sink or shade; a slower `--fps` makes less heat"
    if degrees is not None and degrees >= HOT_C:
        say = findings.wrong if degrees >= TOO_HOT_C else findings.doubtful
        say("throttling", f"the processor has {degrees:.0f} degrees", remedy)


def _power_flags(root: Path) -> int | None:
    """What the Raspberry Pi's firmware says; None where there is none."""
    for path in root.glob("sys/devices/platform/soc/soc:firmware/get_throttled"):
        return int(path.read_text().strip(), 16)
    if not (root / "usr/bin/vcgencmd").exists():
        return None
    command = [str(root / "usr/bin/vcgencmd"), "get_throttled"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout  # noqa: S603 - ours
    found = re.search(r"throttled=0x([0-9a-fA-F]+)", told)
    return int(found[1], 16) if found else None


def _degrees(root: Path) -> Iterator[float]:
    for path in root.glob("sys/class/thermal/thermal_zone*/temp"):
        try:
            yield int(path.read_text()) / 1e3
        except (OSError, ValueError):  # a zone that is switched off cannot be read
            continue


def _saves(path: Path) -> bool:
    return path.read_text().strip() == "powersave"
