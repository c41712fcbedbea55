"""Records are read as they come, whole lines only."""

from pathlib import Path

from headwater.simulations.demo.follow import RecordFollower
from tests.simulations.demo import runs


def test_lines_are_read_once_and_only_when_whole(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    follower = RecordFollower(path)
    assert list(follower.read()) == []
    first, second = (runs.record(index, taken_s=index) for index in range(2))
    line = second.to_json() + "\n"
    path.write_text(first.to_json() + "\n" + line[:40], encoding="utf-8")
    assert list(follower.read()) == [first]
    assert list(follower.read()) == []
    with path.open("a", encoding="utf-8") as file:
        file.write(line[40:])
    assert list(follower.read()) == [second]
