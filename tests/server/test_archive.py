"""The archive's file: each frame once, whatever comes twice, and what a reader gets."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headwater.compression.bundle import Bundle
from headwater.compression.errors import StorageError
from headwater.server.archive import PAGE, Answered, Archive, Chosen, read
from headwater.server.cli import app
from tests.server.kept import kept


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "archive.db"


@pytest.fixture
def archive(path: Path) -> Iterator[Archive]:
    with Archive(path) as archive:
        yield archive


def facts(path: Path, **chosen: object) -> list[dict[str, object]]:
    return [one for one, _ in read(path, Chosen(**chosen))]  # type: ignore[arg-type]


def test_a_frame_is_stored_once_for_each_device_and_id(archive: Archive, tiny_bundle: Bundle) -> None:
    one, two = kept(tiny_bundle, 1), kept(tiny_bundle, 2)
    assert archive.store([("a", one), ("a", two), ("a", one)]) == 2
    assert archive.store([("a", one), ("b", one)]) == 1
    changed = kept(tiny_bundle, 1, data=b"another frame with an id that is taken")
    assert archive.store([("a", changed)]) == 0
    rows = list(read(archive.path, Chosen()))
    assert [(row["device"], row["id"], frame) for row, frame in rows] == [
        ("a", one.id.hex(), one.data),
        ("a", two.id.hex(), two.data),
        ("b", one.id.hex(), one.data),
    ]


def test_what_is_stored_is_what_came(archive: Archive, tiny_bundle: Bundle) -> None:
    one = kept(tiny_bundle, 7)
    archive.store([("a", one)])
    ((row, frame),) = read(archive.path, Chosen())
    assert frame == one.data
    assert row.pop("stored_unix_ms")
    assert row == {
        "number": 1,
        "device": "a",
        "id": one.id.hex(),
        "session": "8000000000000005",
        "sequence": 7,
        "captured_unix_ms": 1_700_000_000_007,
        "bundle_id": tiny_bundle.id.hex(),
        "name": "7.png",
        "local_answer": {"shape": {"left": 0.7}},
        "status": "waiting",
        "detail": "",
        "answer": None,
        "frame_bytes": len(one.data),
    }


def test_answers_are_noted_and_asked_for_again(archive: Archive, tiny_bundle: Bundle) -> None:
    archive.store([("a", kept(tiny_bundle, number)) for number in range(1, 6)])
    assert [one.number for one in archive.waiting(3)] == [1, 2, 3]
    archive.answer(
        [
            Answered(1, "ok", answer='{"shape":{"left":1.0}}'),
            Answered(2, "unknown_bundle", "not served"),
            Answered(3, "internal", "the tails failed"),
            Answered(4, "invalid_frame", "damaged"),
        ]
    )
    assert [one.number for one in archive.waiting(9)] == [5]
    archive.answer_again([bytes(32)])
    assert [one.number for one in archive.waiting(9)] == [3, 5]
    archive.answer_again([tiny_bundle.id])
    assert [one.number for one in archive.waiting(9)] == [2, 3, 5]
    assert facts(archive.path, status="ok")[0]["answer"] == {"shape": {"left": 1.0}}


def test_it_outlives_its_process(path: Path, tiny_bundle: Bundle) -> None:
    with Archive(path) as archive:
        archive.store([("a", kept(tiny_bundle, 1))])
    with Archive(path) as archive:
        assert archive.store([("a", kept(tiny_bundle, 1))]) == 0
        assert len(archive.waiting(9)) == 1


def test_a_reader_chooses_and_sees_what_is_written_meanwhile(archive: Archive, tiny_bundle: Bundle) -> None:
    archive.store([(device, kept(tiny_bundle, number)) for device in "ab" for number in range(PAGE)])
    rows = read(archive.path, Chosen(device="b"))
    assert next(rows)[0]["number"] == PAGE + 1
    archive.store([("b", kept(tiny_bundle, PAGE + 1))])
    assert [row["number"] for row, _ in rows] == list(range(PAGE + 2, 2 * PAGE + 2))
    assert [row["number"] for row in facts(archive.path, after=2 * PAGE)] == [2 * PAGE + 1]


def test_a_device_s_answer_that_is_no_json_stays_text(archive: Archive, tiny_bundle: Bundle) -> None:
    archive.store([("a", kept(tiny_bundle, 1, local_answer='{"shape":'))])
    assert facts(archive.path)[0]["local_answer"] == '{"shape":'


@pytest.mark.parametrize("content", [b"no database" * 999, b""])
def test_a_file_that_is_none(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"archive .*damaged|is an SQLite database, but no archive"):
        list(read(path, Chosen()))


def test_another_database_is_no_archive(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE letters (text)")
    db.close()
    with pytest.raises(StorageError, match="no archive"):
        Archive(path)


# ---------------------------------------------------------------- headwater server archive


def run(*words: str) -> str:
    result = CliRunner().invoke(app, ["archive", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_list_prints_a_line_of_json_a_frame(archive: Archive, tiny_bundle: Bundle) -> None:
    archive.store([("a", kept(tiny_bundle, 1)), ("b", kept(tiny_bundle, 2))])
    lines = [json.loads(line) for line in run("list", str(archive.path)).splitlines()]
    assert lines == facts(archive.path)
    (line,) = run("list", str(archive.path), "--device", "b", "--frames").splitlines()
    assert base64.b64decode(json.loads(line)["frame"]) == kept(tiny_bundle, 2).data
    assert run("list", str(archive.path), "--status", "ok") == ""


def test_export_writes_files(archive: Archive, tiny_bundle: Bundle, tmp_path: Path) -> None:
    archive.store([("a", kept(tiny_bundle, number)) for number in (1, 2)])
    folder = tmp_path / "out" / "frames"
    assert "2 frames" in run("export", str(archive.path), str(folder), "--after", "0")
    lines = [json.loads(line) for line in (folder / "frames.jsonl").read_text().splitlines()]
    assert [line["sequence"] for line in lines] == [1, 2]
    assert [(folder / line["file"]).read_bytes() for line in lines] == [kept(tiny_bundle, n).data for n in (1, 2)]


def test_an_archive_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"there is no archive .*no\.db"):
        CliRunner().invoke(app, ["archive", "list", str(tmp_path / "no.db")], catch_exceptions=False)
