"""Pieces of the study: each finishes by itself, leaves one small JSON, and is skipped when that is there.

    out/rate_accuracy/seed0/ours.json      what the piece found, with its key: every setting that decides it
    out/rate_accuracy/seed0/ours/          its checkpoints; a piece that was killed goes on from the last one

A piece is done again when its key is another: when its settings or those of what it builds on change. The same settings
give another network on another machine, by roundings; that counts as done all the same, as one more draw of the same
recipe would. So a study can go on where another machine left its results: what a piece builds on is trained first where
it is not in the folder. Two processes may work on one folder: a piece that another one holds is left to it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from headwater.compression.errors import HeadwaterError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console
    from rich.progress import Progress

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, eq=False)
class Piece:
    """One thing to train or score on one split."""

    name: str
    seed: int
    settings: Mapping[str, Any]
    """All that decides its result beside the code, as JSON."""
    work: Callable[[Any, Path, Progress], dict[str, Any]]
    """Does it for a study, with a folder for checkpoints; returns the result as JSON."""
    builds_on: tuple[str, ...]
    """Pieces of the same split that have to be done and in the folder."""
    minutes: float
    """Estimate for the full plan, on one core."""

    def __str__(self) -> str:
        """Read as ``seed0/ours``."""
        return f"seed{self.seed}/{self.name}"


class Study(Protocol):
    """Where pieces leave what they found."""

    def work(self, piece: Piece) -> Path:
        """The folder of a piece's checkpoints."""

    def record(self, name: str, seed: int) -> dict[str, Any] | None:
        """What a finished piece left; None where it is not finished."""

    def has(self, name: str, seed: int) -> bool:
        """Whether a finished piece is in the folder, with what others build on."""

    def keep(self, record: dict[str, Any]) -> None:
        """Write a finished piece's record, in one step."""


def state(piece: Piece, study: Study) -> str:
    """``done``, ``waits for NAME``, ``stale`` (done with other settings) or ``to do``."""
    record = study.record(piece.name, piece.seed)
    if record is not None and record["key"] == key_of(piece, study):
        return "done"
    if waits := [name for name in piece.builds_on if not study.has(name, piece.seed)]:
        return f"waits for {', '.join(waits)}"
    return "to do" if record is None else "stale"


def key_of(piece: Piece, study: Study) -> dict[str, Any] | None:
    """Everything that decides a piece's result; None while what it builds on is not there."""
    grounds = {}
    for name in piece.builds_on:
        record = study.record(name, piece.seed)
        if record is None:
            return None
        grounds[name] = hashlib.sha256(json.dumps(record["key"], sort_keys=True).encode()).hexdigest()[:16]
    key: dict[str, Any] = json.loads(json.dumps({"settings": piece.settings, "builds_on": grounds}))
    return key


def run(
    pieces: Sequence[Piece], study: Study, console: Console, progress: Progress, known: Sequence[Piece] = ()
) -> list[Piece]:
    """Do what is not done, in order; returns the pieces that are still not done.

    What they build on is done first where it is not in the folder, if it is among those ``known``.
    """
    by_name = {str(piece): piece for piece in (*known, *pieces)}
    left: list[Piece] = []
    failed: set[str] = set()
    for piece in pieces:
        if state(piece, study) == "done":
            continue
        for step in (*_grounds(piece, by_name, study), piece):
            if str(step) in failed or not _do(step, study, console, progress):
                failed.add(str(step))
                left.append(piece)
                break
    return left


def _grounds(piece: Piece, by_name: Mapping[str, Piece], study: Study) -> list[Piece]:
    """What a piece builds on and is not in the folder, in the order in which it can be done."""
    found: list[Piece] = []
    for name in piece.builds_on:
        ground = by_name.get(f"seed{piece.seed}/{name}")
        if ground is not None and not study.has(name, piece.seed):
            found += [*_grounds(ground, by_name, study), ground]
    return list(dict.fromkeys(found))


def _do(piece: Piece, study: Study, console: Console, progress: Progress) -> bool:
    """Do a piece unless it is done and in the folder; returns False where it is left undone."""
    if study.has(piece.name, piece.seed) and state(piece, study) == "done":
        return True
    if (now := state(piece, study)).startswith("waits"):
        console.print(f"{piece}: {now}", style="yellow", highlight=False)
        return False
    with _held(study.work(piece)) as held:
        if not held:
            console.print(f"{piece}: another process is at it", style="yellow", highlight=False)
            return False
        if study.has(piece.name, piece.seed) and state(piece, study) == "done":
            return True
        return _finish(piece, study, console, progress)


def _finish(piece: Piece, study: Study, console: Console, progress: Progress) -> bool:
    """Run a piece and keep its result; returns False where it could not, so that the others still run."""
    folder = study.work(piece)
    key = key_of(piece, study)
    _keep_or_clear(folder, json.dumps(key, indent=1, sort_keys=True))
    start_s = time.monotonic()
    console.print(f"{piece}: begins", highlight=False)
    try:
        result = piece.work(study, folder, progress)
    except HeadwaterError as error:
        console.print(f"{piece}: {error}", style="red", highlight=False)
        return False
    finally:
        for task in progress.task_ids:
            progress.remove_task(task)
    seconds = time.monotonic() - start_s
    record = {
        "piece": piece.name,
        "seed": piece.seed,
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(seconds),
        "key": key,
        "result": result,
    }
    study.keep(record)
    console.print(f"{piece}: done after {seconds / 60:.1f} minutes", highlight=False)
    return True


def _keep_or_clear(folder: Path, key: str) -> None:
    """Throw away checkpoints of other settings."""
    path = folder / "key.json"
    if path.exists() and path.read_text(encoding="utf-8") != key:
        for old in folder.iterdir():
            if old.name != LOCK:
                shutil.rmtree(old) if old.is_dir() else old.unlink()
    path.write_text(key, encoding="utf-8")


LOCK = ".lock"


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Hold a piece's folder against other processes; gives False where one has it. A kill lets go of it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def commit() -> str:
    """The commit of the code, with a ``+`` where the tree has changes; ``unknown`` outside a repository."""
    try:
        name = _git("rev-parse", "--short=10", "HEAD")
        return name + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
