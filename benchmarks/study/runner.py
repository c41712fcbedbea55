"""Pieces of the study: each finishes by itself, leaves one small JSON, and is skipped when that is there.

    out/rate_accuracy/seed0/ours.json      what the piece found, with its key: every setting that decides it
    out/rate_accuracy/seed0/ours/          its checkpoints; a piece that was killed goes on from the last one

A piece is done again when its key is another: when its settings change, or what it builds on was trained anew. Two
processes may work on one folder: a piece that another one holds is left to it.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.compression.errors import HeadwaterError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console
    from rich.progress import Progress

    from benchmarks.study.study import Study

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Piece:
    """One thing to train or score on one split."""

    name: str
    seed: int
    settings: Mapping[str, Any]
    """All that decides its result beside the code, as JSON."""
    work: Callable[[Study, Path, Progress], dict[str, Any]]
    """Does it, with a folder for checkpoints; returns the result as JSON."""
    builds_on: Mapping[str, str]
    """Pieces of the same split that have to be done, each with the entry of its result by which it is known."""
    minutes: float
    """Estimate for the full plan, on one core."""

    def __str__(self) -> str:
        """Read as ``seed0/ours``."""
        return f"seed{self.seed}/{self.name}"


def state(piece: Piece, study: Study) -> str:
    """``done``, ``waits for NAME``, ``stale`` (done with other settings) or ``to do``."""
    key = key_of(piece, study)
    if key is None:
        waits = [name for name in piece.builds_on if study.record(name, piece.seed) is None]
        return f"waits for {', '.join(waits)}"
    record = study.record(piece.name, piece.seed)
    if record is None:
        return "to do"
    return "done" if record["key"] == key else "stale"


def key_of(piece: Piece, study: Study) -> dict[str, Any] | None:
    """Everything that decides a piece's result; None while what it builds on is not there."""
    grounds = {}
    for name, entry in piece.builds_on.items():
        record = study.record(name, piece.seed)
        if record is None:
            return None
        grounds[name] = record["result"][entry]
    key: dict[str, Any] = json.loads(json.dumps({"settings": piece.settings, "builds_on": grounds}))
    return key


def run(pieces: Sequence[Piece], study: Study, console: Console, progress: Progress) -> list[Piece]:
    """Do what is not done, in order; returns the pieces that are still not done."""
    left = []
    for piece in pieces:
        now = state(piece, study)
        if now == "done":
            continue
        if now.startswith("waits"):
            console.print(f"{piece}: {now}", style="yellow", highlight=False)
            left.append(piece)
            continue
        with _held(study.work(piece)) as held:
            if not held:
                console.print(f"{piece}: another process is at it", style="yellow", highlight=False)
                left.append(piece)
                continue
            if state(piece, study) != "done" and not _finish(piece, study, console, progress):
                left.append(piece)
    return left


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
