"""Pieces of the study: done once, again when their grounds change, gone on with after a kill, never by two at once."""

import fcntl
import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress

from benchmarks import rate_accuracy
from benchmarks.study import runner
from benchmarks.study.pieces import all_pieces, chosen
from benchmarks.study.plan import FULL, TINY
from benchmarks.study.runner import Piece
from benchmarks.study.study import Study
from headwater.compression.errors import DataError

Run = Callable[[Sequence[Piece]], list[Piece]]


class Work:
    """What fake pieces did, in order."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.fails: set[str] = set()

    def do(self, _study: Study, folder: Path, _progress: Progress, name: str) -> dict[str, Any]:
        checkpoint = folder / "checkpoint"
        self.done.append(f"{name} from {checkpoint.read_text()}" if checkpoint.exists() else name)
        checkpoint.write_text("half")
        if name in self.fails:
            raise DataError("it cannot be done")
        return {}

    def pieces(self, **settings: int) -> list[Piece]:
        ground = Piece("ground", 0, dict(settings), partial(self.do, name="ground"), (), 1)
        return [ground, Piece("wall", 0, {}, partial(self.do, name="wall"), ("ground",), 1)]


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(TINY, tmp_path / "study")


@pytest.fixture
def run(study: Study) -> Iterator[Run]:
    with Progress(disable=True) as progress:
        yield lambda pieces: runner.run(pieces, study, Console(file=io.StringIO()), progress)


def test_a_piece_is_done_once(work: Work, study: Study, run: Run) -> None:
    assert [runner.state(piece, study) for piece in work.pieces()] == ["to do", "waits for ground"]
    assert run(work.pieces()) == []
    assert run(work.pieces()) == []
    assert work.done == ["ground", "wall"]
    assert [runner.state(piece, study) for piece in work.pieces()] == ["done", "done"]


def test_other_settings_or_other_ground_are_done_anew(work: Work, study: Study, run: Run) -> None:
    run(work.pieces())
    assert [runner.state(piece, study) for piece in work.pieces(epochs=3)] == ["stale", "done"]
    run(work.pieces(epochs=3))
    assert work.done == ["ground", "wall", "ground", "wall"], "old checkpoints are thrown away"


def records_of(work: Work, folder: Path, run_in: Callable[[Study], object]) -> list[dict[str, Any]]:
    """What another machine left of these pieces."""
    other = Study(TINY, folder)
    run_in(other)
    return [record for piece in work.pieces() if (record := other.record(piece.name, piece.seed)) is not None]


def test_a_study_goes_on_where_another_machine_left_its_results(work: Work, tmp_path: Path) -> None:
    with Progress(disable=True) as progress:
        console = Console(file=io.StringIO())
        records = records_of(work, tmp_path / "a", lambda other: runner.run(work.pieces(), other, console, progress))
        study = Study(TINY, tmp_path / "b", elsewhere=records)
        house = Piece("house", 0, {}, partial(work.do, name="house"), ("wall",), 1)
        assert [runner.state(piece, study) for piece in (*work.pieces(), house)] == ["done", "done", "waits for wall"]
        assert runner.run(work.pieces(), study, console, progress) == []
        assert work.done == ["ground", "wall"], "nothing is done twice"
        assert runner.run([house], study, console, progress, work.pieces()) == []
        assert work.done == ["ground", "wall", "ground", "wall", "house"], "what it builds on is not in this folder"
        assert runner.state(house, study) == "done"


def test_a_piece_that_fails_leaves_the_others_alone_and_goes_on_later(work: Work, run: Run) -> None:
    work.fails = {"ground"}
    other = Piece("other", 0, {}, partial(work.do, name="other"), (), 1)
    assert [piece.name for piece in run([*work.pieces(), other])] == ["ground", "wall"]
    work.fails = set()
    assert run([*work.pieces(), other]) == []
    assert work.done == ["ground", "other", "ground from half", "wall"]


def test_a_piece_that_another_process_holds_is_left_to_it(work: Work, study: Study, run: Run) -> None:
    folder = study.work(work.pieces()[0])
    folder.mkdir(parents=True)
    with (folder / runner.LOCK).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert [piece.name for piece in run(work.pieces())] == ["ground", "wall"]
    assert work.done == []
    assert run(work.pieces()) == []


def test_pieces_are_chosen_by_the_beginning_of_their_names() -> None:
    assert {piece.name for piece in chosen(FULL, ["tuned-webp"], [0])} == {
        f"tuned-webp-{side}" for side in FULL.tuned_sides("WebP")
    }
    assert len(chosen(FULL)) == len(all_pieces(FULL))
    (one,) = chosen(FULL, ["tuned-avif-64-q40"], [1])
    assert one.settings["settings"] == ["AVIF 64x64 q40"]
    with pytest.raises(ValueError, match="no piece begins with 'tunde'; there are teacher"):
        chosen(FULL, ["tunde"])


def test_the_headline_has_three_splits_and_names_are_unique() -> None:
    names = [str(piece) for piece in all_pieces(FULL)]
    assert len(set(names)) == len(names)
    for headline in ("teacher", "ours", "codec-webp", "codec-avif", "tuned-avif-64"):
        assert {f"seed{seed}/{headline}" for seed in (0, 1, 2)} <= set(names)
    assert [name for name in names if name.endswith("/tuned-webp-64")] == ["seed0/tuned-webp-64"]


def test_the_list_names_every_piece(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rate_accuracy.main(["--list", "--out", str(tmp_path), "--seeds", "1"]) == 0
    printed = capsys.readouterr().out
    assert "seed1/ours" in printed
    assert "seed0" not in printed
    assert "left to do" in printed


def test_there_is_nothing_to_show_before_the_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rate_accuracy.main(["--table", "--results", str(tmp_path / "none.json")]) == 1
    assert "--full" in capsys.readouterr().out
    (claim,) = rate_accuracy.committed(tmp_path / "none.json")
    assert claim.value is None
