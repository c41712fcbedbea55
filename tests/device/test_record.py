"""Records written, read back, and mended after a kill."""

import asyncio
import errno
import json
import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest

from headwater.compression.errors import DataError, SettingsError
from headwater.device import record as record_module
from headwater.device.record import FrameRecord, RecordFile, Result, ServerTimes, read_records

RECORD = FrameRecord(
    sequence=7,
    name="zelle ü.png",
    taken="2026-05-04T09:12:33.120+00:00",
    source="edge",
    status="ok",
    detail="",
    mode=4,
    width=0.25,
    gain=0,
    groups=3,
    bytes=31,
    attempts=1,
    latency_ms=9.5,
    prepare_ms=0.25,
    head_ms=0.5,
    code_ms=0.125,
    wait_ms=0.0,
    round_trip_ms=8.5,
    server=ServerTimes(40, 25, 1100, 1, 0),
    results={"defect": Result("intact", 0.75, {"intact": 0.75, "defective": 0.25})},
    truth={"defect": "intact"},
)


def test_round_trip(tmp_path: Path) -> None:
    records = [RECORD, replace(RECORD, sequence=8, status="expired", results={}, detail="no answer\nbefore"), RECORD]
    with RecordFile(tmp_path / "new" / "r.jsonl") as file:
        for record in records:
            file.write(record)
            assert len(list(read_records(file.path))) <= len(records)  # readable while it is written
    assert list(read_records(tmp_path / "new" / "r.jsonl")) == records


def test_a_kill_loses_the_last_line_at_most(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with RecordFile(path) as file:
        file.write(RECORD)
        file.write(RECORD)
    whole = path.read_bytes()
    for end in range(whole.index(b"\n") + 1, len(whole)):
        path.write_bytes(whole[:end])
        with RecordFile(path) as file:
            file.write(RECORD)
        read = list(read_records(path))
        assert read == [RECORD] * len(read)
        assert len(read) >= 2


def test_lines_are_plain_json(tmp_path: Path) -> None:
    with RecordFile(tmp_path / "r.jsonl") as file:
        file.write(RECORD)
    (line,) = (tmp_path / "r.jsonl").read_text("utf-8").splitlines()
    plain = json.loads(line)
    assert plain["results"]["defect"]["label"] == "intact"
    assert plain["server"]["run_us"] == 1100


def test_truth() -> None:
    assert RECORD.correct == {"defect": True}
    assert replace(RECORD, truth={"defect": "defective", "other": "x"}).correct == {"defect": False}
    assert replace(RECORD, truth={}).correct == {}


def test_an_answer_by_its_task() -> None:
    assert RECORD["defect"].score == 0.75
    with pytest.raises(KeyError, match="no answer to 'defekt'; there are defect"):
        RECORD["defekt"]


def test_unwritable_and_missing(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be written"):
        RecordFile(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        list(read_records(tmp_path / "none"))


class Disk:
    """The file of records, on a disk with so much room."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self.room: int | None = None

    def write(self, data: bytes) -> int:
        if self.room is None:
            return self._file.write(data)
        fits, self.room = data[: self.room], max(self.room - len(data), 0)
        if not fits:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._file.write(fits)

    def close(self) -> None:
        self._file.close()


@pytest.mark.parametrize("room", [0, 1, 700, 701, 1000])
def test_records_wait_for_a_full_disk_and_none_is_torn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, room: int
) -> None:
    records = [replace(RECORD, sequence=number) for number in range(1, 9)]
    with RecordFile(tmp_path / "r.jsonl") as file:
        file._file.close()
        file._file = disk = Disk(file.path)  # type: ignore[assignment]
        file.write(records[0])
        disk.room = room
        for record in records[1:5]:
            file.write(record)
        assert len(list(read_records(file.path))) < 5
        assert [one.levelno for one in caplog.records] == [logging.ERROR], "said once"
        disk.room = None
        for record in records[5:]:
            file.write(record)
        assert list(read_records(file.path)) == records
    assert "written to" in caplog.records[-1].getMessage()
    assert file.dropped == 0


async def test_what_waits_is_written_though_no_record_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_module, "RETRY_S", 0.001)
    with RecordFile(tmp_path / "records.jsonl") as file:
        assert file._file is not None
        file._file.close()
        file._file = disk = Disk(file.path)  # type: ignore[assignment]
        disk.room = 10
        file.write(RECORD)
        retrying = asyncio.create_task(file.retry())
        disk.room = None
        async with asyncio.timeout(60):
            while list(read_records(file.path)) != [RECORD]:  # noqa: ASYNC110 - a file
                await asyncio.sleep(0.001)
        retrying.cancel()


def test_what_waits_at_the_end_is_written_if_the_disk_takes_it(tmp_path: Path) -> None:
    with RecordFile(tmp_path / "r.jsonl") as file:
        file._file.close()
        file._file = disk = Disk(file.path)  # type: ignore[assignment]
        disk.room = 10
        file.write(RECORD)
        disk.room = None
    assert list(read_records(file.path)) == [RECORD]


def test_records_that_wait_for_too_long_are_dropped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_module, "MOST_WAITING", 3)
    with RecordFile(tmp_path / "r.jsonl") as file:
        file._file.close()
        file._file = disk = Disk(file.path)  # type: ignore[assignment]
        disk.room = 10  # of the first line
        for number in range(1, 9):
            file.write(replace(RECORD, sequence=number))
        assert file.dropped == 4
    assert "8 records were not written" in caplog.records[-1].getMessage()
    assert list(read_records(file.path)) == []
