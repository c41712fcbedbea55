"""What every SQLite file of a device or a server is opened with."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from headwater.compression.database import CACHE_KIB, Kind, connect

KIND = Kind("shelf", 0x12345678, 1, "CREATE TABLE books (title TEXT)", "begin again")


def test_a_connection_keeps_little_of_a_file_in_memory(tmp_path: Path) -> None:
    for reading in (False, True):
        with closing(connect(KIND, tmp_path / "shelf.db", reading=reading)) as db:
            assert db.execute("PRAGMA cache_size").fetchone() == (-CACHE_KIB,)
