"""The library that takes clock and disk away from a process does just that, and nothing else."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.soaking.footing import Footing


def run(footing: Footing, code: str) -> str:
    """What Python code prints that stands there."""
    command = [sys.executable, "-c", f"import errno, os, sqlite3, sys, time\nroot = {str(footing.folder)!r}\n{code}"]
    env = {**os.environ, **footing.env}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def test_the_time_of_day_jumps_and_no_other_clock(tmp_path: Path) -> None:
    with Footing(tmp_path) as footing:
        footing.clock_s = -3600.0
        said = run(footing, "print(time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME))").split()
    now, steady, boot = time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME)
    assert [float(word) for word in said] == pytest.approx([now - 3600, steady, boot], abs=60)


def test_a_full_disk_takes_what_fits_and_overwrites_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"-" * 50)
    code = """
file = os.open(f"{root}/old", os.O_WRONLY)
print(os.write(file, b"x" * 50))
more = os.open(f"{root}/new", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
print(os.write(more, b"y" * 80), os.write(more, b"y" * 80))
try:
    os.write(more, b"y")
except OSError as error:
    print(errno.errorcode[error.errno])
"""
    with Footing(tmp_path) as footing:
        footing.room = 100
        assert run(footing, code).split() == ["50", "80", "20", "ENOSPC"]
        assert footing.room == 0
    assert (tmp_path / "old").read_bytes() == b"x" * 50
    assert (tmp_path / "new").read_bytes() == b"y" * 100


def test_a_named_pipe_takes_bytes_whatever_the_disk(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    code = """
pipe = os.open(f"{root}/pipe", os.O_RDWR)
print(os.write(pipe, b"x"), os.read(pipe, 9))
"""
    with Footing(tmp_path) as footing:
        footing.room, footing.read_only = 0, True
        assert run(footing, code) == "1 b'x'"


def test_sqlite_meets_a_full_disk_and_loses_nothing_that_it_had(tmp_path: Path) -> None:
    code = """
db = sqlite3.connect(f"{root}/d.db", isolation_level=None)
db.execute("PRAGMA journal_mode = WAL")
db.execute("CREATE TABLE IF NOT EXISTS t (n INTEGER, b BLOB)")
try:
    for number in range(1000):
        db.execute("INSERT INTO t VALUES (?, ?)", (number, bytes(3000)))
except sqlite3.OperationalError as error:
    print(number, error)
"""
    with Footing(tmp_path) as footing:
        footing.room = 400_000
        number, _, error = run(footing, code).partition(" ")
    assert error == "database or disk is full"
    with closing(sqlite3.connect(tmp_path / "d.db")) as db:
        assert db.execute("SELECT count(*) FROM t").fetchone() == (int(number),)


@pytest.mark.parametrize(
    "change",
    [
        "open(f'{root}/kept', 'a')",
        "open(f'{root}/fresh', 'wb')",
        "os.mkdir(f'{root}/folder')",
        "os.unlink(f'{root}/kept')",
        "os.rename(f'{root}/kept', f'{root}/other')",
        "os.ftruncate(held, 0)",
        "os.write(held, b'x')",
        "os.pwrite(held, b'x', 0)",
        "os.chdir(root); open('fresh', 'wb')",
    ],
)
def test_a_read_only_file_system_takes_no_change(tmp_path: Path, change: str) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "kept").write_text("as it was")
    code = f"""
held = os.open(f"{{root}}/kept", os.O_RDWR)
print(open(f"{{root}}/kept").read(), flush=True)
sys.stdin.readline()
try:
    {change}
except OSError as error:
    print(errno.errorcode[error.errno])
open(os.path.dirname(root) + "/beside", "w").write("no part of that disk")
"""
    with Footing(tmp_path / "disk") as footing:
        command = [sys.executable, "-c", f"import errno, os, sys\nroot = {str(footing.folder)!r}\n{code}"]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, env={**os.environ, **footing.env}, stdin=pipe, stdout=pipe, text=True, bufsize=1
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "as it was\n"
            footing.read_only = True  # while a file is open for writing
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.read() == "EROFS\n"
    assert (tmp_path / "disk" / "kept").read_text() == "as it was"
    assert (tmp_path / "beside").read_text() == "no part of that disk"
