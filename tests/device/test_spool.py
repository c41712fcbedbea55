"""The device's spool: bounds, order, damage, and a process that is killed while it writes."""

import asyncio
import logging
import shutil
import signal
import sqlite3
import sys
import time
from pathlib import Path

import pytest

from headwater.compression.errors import SettingsError, StorageError
from headwater.device.kept import KeptFrame, answer_json
from headwater.device.record import Result
from headwater.device.settings import DeviceSettings
from headwater.device.spool import OVERHEAD_BYTES, TELL_S, Spool, SpoolStats
from headwater.protos import edge_pb2 as pb

BUNDLE = bytes(range(32))


class Clock:
    """Seconds of a boot, turned by the test."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def frame(number: int, size: int = 100) -> KeptFrame:
    return KeptFrame(7, number, 1_700_000_000_000 + number, BUNDLE, bytes([number % 256]) * size, name=f"{number}.png")


def size_of(kept: KeptFrame) -> int:
    return len(message(kept).SerializeToString()) + OVERHEAD_BYTES


def message(kept: KeptFrame) -> pb.KeptFrame:
    return pb.KeptFrame(**vars(kept))


def open_spool(path: Path, max_bytes: int = 1 << 20, max_age_s: float = 3600.0, clock: Clock | None = None) -> Spool:
    return Spool(path, max_bytes, max_age_s, clock=clock or Clock(), boot="first")


def numbers(frames: list[pb.KeptFrame]) -> list[int]:
    return [one.sequence for one in frames]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


def test_what_is_kept_comes_out_whole_in_order_and_once(path: Path) -> None:
    kept = [frame(number) for number in range(1, 6)]
    with open_spool(path) as spool:
        for one in kept:
            spool.keep(one)
        assert spool.oldest(2) == [message(one) for one in kept[:2]]
        assert numbers(spool.oldest(9)) == [3, 4, 5]
        assert spool.oldest(9) == []
        spool.delivered([kept[1].id, kept[4].id, b"nobody's"])
        spool.release([kept[0].id])
        assert numbers(spool.oldest(9)) == [1]
        spool.release()
        assert numbers(spool.oldest(9)) == [1, 3, 4]
        assert spool.stats == SpoolStats(3, 3 * size_of(kept[0]), kept=5, delivered=2)


def test_it_outlives_its_process_and_tells_whoever_delivers(path: Path) -> None:
    heard = []
    with open_spool(path) as spool:
        spool.on_kept = lambda: heard.append(spool.stats.frames)
        spool.keep(frame(1))
        spool.keep(frame(2))
        spool.oldest(1)
    assert heard == [1, 2]
    with open_spool(path) as spool:
        assert numbers(spool.oldest(9)) == [1, 2], "what was on its way is to be delivered again"
        assert spool.stats.kept == 2


def test_every_frame_has_an_id_of_its_own() -> None:
    ids = {frame(1).id for _ in range(100)}
    assert len(ids) == 100
    assert {len(one) for one in ids} == {16}


def test_too_many_bytes_drop_the_oldest_and_are_counted(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with open_spool(path, max_bytes=3 * size_of(frame(1)), clock=clock) as spool:
        for number in range(1, 6):
            spool.keep(frame(number))
        assert (spool.stats.frames, spool.stats.dropped_full) == (3, 2)
        clock.now_s += TELL_S
        spool.keep(frame(6))
        assert numbers(spool.oldest(9)) == [4, 5, 6]
    logged = [record.getMessage().partition("frames: ")[2] for record in caplog.records]
    assert logged == ["1 for room, 0 for age", "2 for room, 0 for age"], "not a line for each"
    with open_spool(path) as spool:
        assert (spool.stats.kept, spool.stats.dropped_full) == (6, 3), "the counts are the file's"


def test_what_is_on_its_way_is_not_dropped(path: Path) -> None:
    clock = Clock()
    with open_spool(path, max_bytes=3 * size_of(frame(1)), max_age_s=10, clock=clock) as spool:
        for number in range(1, 4):
            spool.keep(frame(number))
        first = spool.oldest(1)
        spool.keep(frame(4))
        assert spool.stats.dropped_full == 1
        clock.now_s += 11
        spool.expire()
        assert (spool.stats.frames, spool.stats.dropped_old) == (1, 2)
        spool.delivered([one.id for one in first])
        assert (spool.stats.frames, spool.stats.bytes, spool.stats.delivered) == (0, 0, 1)


def test_a_frame_that_is_larger_than_the_spool_drops_no_other(path: Path) -> None:
    with open_spool(path, max_bytes=1000) as spool:
        spool.keep(frame(1))
        spool.keep(frame(2, size=2000))
        assert numbers(spool.oldest(9)) == [1]
        assert (spool.stats.kept, spool.stats.dropped_full) == (2, 1)


def test_old_frames_are_dropped_whatever_the_wall_clock_says(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    with open_spool(path, max_age_s=100, clock=clock) as spool:
        for number, jump_s in ((1, 0), (2, -1e9), (3, 1e9)):
            monkeypatch.setattr(time, "time", lambda jump_s=jump_s: jump_s)
            spool.keep(frame(number))
            clock.now_s += 40
        spool.expire()
        assert numbers(spool.oldest(9)) == [2, 3]


def test_the_age_goes_on_over_processes_and_boots_and_never_back(path: Path) -> None:
    with open_spool(path, max_age_s=100, clock=Clock(5000)) as spool:
        spool.keep(frame(1))
    with open_spool(path, max_age_s=100, clock=Clock(5060)) as spool:  # the process was away for a minute
        spool.keep(frame(2))
    with Spool(path, 1 << 20, 100, clock=Clock(3), boot="second") as spool:  # off for nobody knows how long
        spool.keep(frame(3))
        assert spool.stats.frames == 3
    clock = Clock(3 + 41)
    with Spool(path, 1 << 20, 100, clock=clock, boot="second") as spool:
        assert numbers(spool.oldest(9)) == [2, 3], "60 s and 41 s"
        spool.release()
        clock.now_s = 0.0
        spool.expire()
        assert spool.stats.frames == 2


def test_the_file_stays_small_whatever_passes_through_it(path: Path) -> None:
    most = 200_000
    with open_spool(path, max_bytes=most) as spool:
        for number in range(1000):
            spool.keep(frame(number, size=1500))
            if number % 3 == 0:
                spool.delivered([one.id for one in spool.oldest(2)])
        assert spool.stats.dropped_full > 0
        on_disk = sum(file.stat().st_size for file in path.parent.iterdir())
    assert on_disk < 1.5 * most + (1 << 21)


# ---------------------------------------------------------------- settings


def test_a_spool_of_the_settings(path: Path) -> None:
    assert Spool.open(DeviceSettings()) is None
    spool = Spool.open(DeviceSettings(keep="all", spool=path))
    assert spool is not None
    with spool:
        spool.keep(frame(1))
        assert spool.stats.frames == 1
    with pytest.raises(SettingsError, match="no spool is set"):
        DeviceSettings(keep="unanswered")


def test_an_answer_in_few_bytes() -> None:
    scores = {"functional": 0.98123456, "defective": 0.01876544}
    assert answer_json({"defect": Result("functional", 0.98, scores)}) == (
        '{"defect":{"functional":0.9812,"defective":0.0188}}'
    )
    assert answer_json({}) == ""


# ---------------------------------------------------------------- damage


def test_a_second_process_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.compression.database.LOCK_S", 0.0)
    with open_spool(path), pytest.raises(StorageError, match="used by another process"):
        open_spool(path)
    open_spool(path).close()


def test_a_damaged_file_says_what_to_do(path: Path) -> None:
    with open_spool(path) as spool:
        for number in range(400):
            spool.keep(frame(number, size=500))
    whole = path.read_bytes()
    for damaged in (b"this is no database, whatever its name says" * 100, whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(StorageError, match=r"(?s)damaged, or is none .* move it away, .*spool\.db-wal"):
            open_spool(path)
    path.rename(path.with_suffix(".away"))
    open_spool(path).close()


def test_another_database_is_left_alone(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE letters (text)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(StorageError, match="is an SQLite database, but no spool"):
        open_spool(path)
    path.unlink()
    open_spool(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StorageError, match="has format 99; this headwater reads format 1"):
        open_spool(path)
    assert before


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is its folder there"):
        open_spool(tmp_path / "nowhere" / "spool.db")


def test_a_full_disk_costs_frames_but_not_the_agent(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_spool(path) as spool:
        spool.keep(frame(1))
        (pages,) = spool._db.execute("PRAGMA page_count").fetchone()
        spool._db.execute(f"PRAGMA max_page_count = {pages}")
        for number in range(2, 6):
            spool.keep(frame(number, size=9000))
        assert spool.stats.failed == 4
        assert [record.levelno for record in caplog.records] == [logging.ERROR], "said once"
        assert "did not take a frame" in caplog.text
        spool._db.execute("PRAGMA max_page_count = 100000")
        spool.keep(frame(6))
        assert numbers(spool.oldest(9)) == [1, 6]
        assert spool.stats.frames == 2


def test_what_was_delivered_to_a_disk_that_takes_nothing_is_deleted_later(path: Path) -> None:
    with open_spool(path) as spool:
        for number in range(1, 4):
            spool.keep(frame(number))
        first, second, _ = (one.id for one in spool.oldest(3))
        spool._db.execute("PRAGMA query_only = 1")
        spool.delivered([first])
        assert spool.undeleted
        assert spool.oldest(9) == [], "what was delivered is not delivered again"
        spool._db.execute("PRAGMA query_only = 0")
        spool.delivered([second])
        assert not spool.undeleted
        assert spool.stats == SpoolStats(1, spool.stats.bytes, kept=3, delivered=2)
        spool.release()
        assert numbers(spool.oldest(9)) == [3]


def test_a_row_that_cannot_be_read_is_counted_and_skipped(path: Path) -> None:
    with open_spool(path) as spool:
        spool.keep(frame(1))
        spool.keep(frame(2))
        spool.keep(frame(3))
        spool._db.execute("UPDATE kept SET message = x'ffffff' WHERE number = 1")
        spool._db.execute("UPDATE kept SET message = x'' WHERE number = 3")
        assert numbers(spool.oldest(9)) == [2], "no server takes the others"
        assert (spool.stats.frames, spool.stats.failed) == (1, 2)


def test_a_clock_before_its_time_does_not_stop_a_frame(path: Path) -> None:
    with open_spool(path) as spool:
        spool.keep(KeptFrame(1, 1, -5, BUNDLE, b"data"))
        assert spool.oldest(1)[0].captured_unix_ms == 0


def test_a_journal_cut_at_any_byte_leaves_a_beginning(path: Path, tmp_path: Path) -> None:
    spool = open_spool(path)
    for number in range(1, 9):
        spool.keep(frame(number))
    copies = tmp_path / "copies"
    copies.mkdir()
    journal = path.with_name("spool.db-wal").read_bytes()
    shutil.copy(path, copies / "whole.db")
    spool.close()
    left = []
    for end in (*range(0, len(journal), 997), len(journal)):
        cut = copies / f"{end}.db"
        shutil.copy(copies / "whole.db", cut)
        cut.with_name(f"{end}.db-wal").write_bytes(journal[:end])
        with open_spool(cut) as again:
            kept = numbers(again.oldest(99))
            assert kept == list(range(1, len(kept) + 1))
            assert again.stats.frames == again.stats.kept == len(kept)
            left.append(len(kept))
            again.keep(frame(100))
    assert left == sorted(left)
    assert (left[0], max(left)) == (0, 8)


KEEPER = """
import sys
from pathlib import Path
from headwater.device.kept import KeptFrame
from headwater.device.spool import Spool

spool = Spool(Path(sys.argv[1]), 1 << 20, 3600)
print("open", *(one.id.hex() for one in spool.oldest(10_000)), flush=True)
spool.release()
while True:
    frame = KeptFrame(1, spool.stats.kept + 1, 0, bytes(32), bytes(200))
    print("keep", frame.id.hex(), flush=True)
    spool.keep(frame)
    print("kept", frame.id.hex(), flush=True)
    if spool.stats.kept % 3 == 0:
        (oldest,) = spool.oldest(1)
        print("give", oldest.id.hex(), flush=True)
        spool.delivered([oldest.id])
        print("gone", oldest.id.hex(), flush=True)
"""


async def test_a_process_killed_at_any_line_loses_nothing_that_it_kept(path: Path) -> None:
    said: dict[str, list[str]] = {"open": [], "keep": [], "kept": [], "give": [], "gone": []}
    for lines in (1, 9, 40, 23, 2):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", KEEPER, str(path), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        for number in range(lines):
            await read(said, (await process.stdout.readline()).decode(), first=number == 0)
        process.send_signal(signal.SIGKILL)
        rest, _ = await process.communicate()
        for line in rest.decode().splitlines(keepends=True):
            await read(said, line, first=False)
    with Spool(path, 1 << 20, 3600) as spool:
        left = [one.id.hex() for one in spool.oldest(10_000)]
    assert_nothing_lost(said, left)
    assert len(said["kept"]) > 20


async def read(said: dict[str, list[str]], line: str, *, first: bool) -> None:
    """Note a whole line; at a new process' first one, what it found is all that can be there."""
    if not line.endswith("\n"):
        return
    word, *ids = line.split()
    if first:
        assert word == "open", line
        assert_nothing_lost(said, ids)
    else:
        said[word] += ids


def assert_nothing_lost(said: dict[str, list[str]], found: list[str]) -> None:
    assert len(found) == len(set(found))
    assert set(said["kept"]) - set(said["give"]) <= set(found) <= set(said["keep"]) - set(said["gone"])
    assert found == [one for one in said["keep"] if one in set(found)], "in the order of keeping"
