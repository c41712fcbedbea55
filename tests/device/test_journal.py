"""Levels before each line where standard error is the journal, and only there."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headwater.device.journal import JournalFormatter, is_journal

CODE = """
import logging
from headwater.device import journal
journal.configure("info")
logging.getLogger("x").debug("not this")
logging.getLogger("x").info("up")
logging.getLogger("x").warning("two\\nlines")
try:
    raise ValueError("why")
except ValueError:
    logging.getLogger("x").exception("bad")
"""


def said(path: Path, *, journal: bool) -> list[str]:
    """What a process says whose standard error is a file, which systemd calls the journal or not."""
    with path.open("wb") as file:
        found = os.fstat(file.fileno())
        stream = f"{found.st_dev}:{found.st_ino}" if journal else "1:1"
        env = {**os.environ, "JOURNAL_STREAM": stream}
        subprocess.run([sys.executable, "-c", CODE], env=env, stderr=file, check=True, timeout=60)
    return path.read_text(encoding="utf-8").splitlines()


def test_the_journal_gets_levels_and_no_time(tmp_path: Path) -> None:
    lines = said(tmp_path / "log", journal=True)
    assert lines[:4] == ["<6>up", "<4>two", "<4>lines", "<3>bad"]
    assert lines[4] == "<3>Traceback (most recent call last):"
    assert lines[-1] == "<3>ValueError: why"


def test_people_get_the_time_and_the_level_s_name(tmp_path: Path) -> None:
    first, *_ = said(tmp_path / "log", journal=False)
    assert first[:2] == "20"
    assert first.endswith("INFO    up")


@pytest.mark.parametrize(("level", "number"), [(10, 7), (20, 6), (30, 4), (35, 4), (40, 3), (50, 2)])
def test_levels(level: int, number: int) -> None:
    record = logging.LogRecord("x", level, "", 0, "text", None, None)
    assert JournalFormatter("%(message)s").format(record) == f"<{number}>text"


def test_no_journal_without_systemd(tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as file:
        assert not is_journal(file.fileno(), {})
