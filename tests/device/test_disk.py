"""What is the disk's doing and passes, and what is a wrong path."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.soaking.footing import Footing
from headwater.device import disk


@pytest.mark.parametrize(
    ("number", "passes"), [(errno.ENOSPC, True), (errno.EROFS, True), (errno.ENOENT, False), (errno.EACCES, False)]
)
def test_whose_doing_an_error_is(number: int, *, passes: bool) -> None:
    assert disk.is_disk_s(OSError(number, "why")) is passes


def refuses(path: Path, footing: Footing) -> str:
    code = f"from pathlib import Path; from headwater.device.disk import refuses; print(refuses(Path({str(path)!r})))"
    env = {**os.environ, **footing.env}
    return subprocess.run([sys.executable, "-c", code], env=env, text=True, capture_output=True, check=True).stdout


@pytest.mark.parametrize("place", ["there", "there/spool.db", "not/there/yet"])
def test_a_disk_is_asked_where_a_path_is_or_would_be(tmp_path: Path, place: str) -> None:
    with Footing(tmp_path / "disk") as footing:
        (tmp_path / "disk/there").mkdir()
        path = tmp_path / "disk" / place
        assert refuses(path, footing) == "False\n"
        footing.room = 100
        assert refuses(path, footing) == "True\n"
        footing.mend()
        footing.read_only = True
        assert refuses(path, footing) == "True\n"
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "disk", tmp_path / "disk/there"]
