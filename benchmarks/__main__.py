"""Runs every benchmark, each in a process of its own, and sums up their claims.

    python -m benchmarks                              # all of them, full size
    python -m benchmarks coder serving --quick        # some, smallest size
    python -m benchmarks --json out/bench.json        # also write the claims there, in place of what the file holds

Those whose figures are no times (they say ``TIMED = False``) run first, side by side, each on a core of its own, those
that last longest (they say for about how many ``SECONDS``) before others; then the others, one after the other and
alone. How long each of them took stands at the end.

The exit status is that of the runs, not of the claims: a figure that misses its target is a result and stands in the
summary; a benchmark that crashes, or finds a wrong answer, fails the run. The others still run.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.claims import Claim, merge, read, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE = Path(__file__).parent
SHARED = {"__init__", "__main__", "claims"}
LIMIT_S = 600
"""The most that one benchmark may take; the run of all of them is meant to end within 15 minutes."""


class Ended(NamedTuple):
    """One benchmark's run."""

    name: str
    well: bool
    """It ended by itself and found no wrong answer."""
    claims: list[Claim]
    seconds: float


def names() -> list[str]:
    """Name every benchmark: a module of this folder with a ``main`` of its own."""
    return [name for name in sorted({path.stem for path in HERE.glob("*.py")} - SHARED) if _says(name, "def main(")]


def timed(name: str) -> bool:
    """Whether a benchmark's figures are times, so that it has to be alone on the machine."""
    return not _says(name, "TIMED = False")


def lasts(name: str) -> int:
    """For about how many seconds an untimed benchmark runs, as it says."""
    found = re.search(r"^SECONDS = (\d+)", _text(name), re.MULTILINE)
    return int(found[1]) if found else 0


def _says(name: str, line: str) -> bool:
    return f"\n{line}" in _text(name)


def _text(name: str) -> str:
    return (HERE / f"{name}.py").read_text(encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks that the command line names, or all; returns how many failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Run benchmarks, sum up their claims.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which; default all: {', '.join(names())}")
    parser.add_argument("--quick", action="store_true", help="smallest sizes: answers are checked, figures mean little")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the claims to this file (out/bench.json)")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(names()):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    chosen = options.names or names()
    start_s = time.monotonic()
    untimed = sorted((name for name in chosen if not timed(name)), key=lasts, reverse=True)
    every = [*side_by_side(untimed, quick=options.quick)]
    every += [run(name, quick=options.quick) for name in chosen if timed(name)]
    every.sort(key=lambda ended: chosen.index(ended.name))
    found = [claim for ended in every for claim in ended.claims]
    if options.json is not None:
        options.json.unlink(missing_ok=True)
        merge(found, options.json)
    if len(chosen) > 1:
        Console().print(table("All claims", found))
        Console().print(durations(every, time.monotonic() - start_s))
    failed = [ended.name for ended in every if not ended.well]
    for name in failed:
        print(f"FAILED: python -m benchmarks.{name}")
    return len(failed)


def durations(every: Sequence[Ended], all_s: float) -> Table:
    """How long each took, and all of them."""
    result = Table(title="How long they took", title_justify="left")
    result.add_column("benchmark")
    result.add_column("s", justify="right")
    result.add_column("ran")
    for ended in every:
        ran = "alone" if timed(ended.name) else "beside others"
        result.add_row(ended.name, f"{ended.seconds:.0f}", ran if ended.well else f"{ran}, [red]FAILED")
    result.add_section()
    result.add_row("all", f"{all_s:.0f}", f"{int(all_s) // 60} min {int(all_s) % 60:02d} s")
    return result


def side_by_side(chosen: Sequence[str], *, quick: bool) -> Iterator[Ended]:
    """Run benchmarks at the same time, as many as there are cores; what each prints comes in one piece."""
    cores: SimpleQueue[int] = SimpleQueue()
    for core in sorted(os.sched_getaffinity(0)):
        cores.put(core)

    def one(name: str) -> Ended:
        core = cores.get()
        os.sched_setaffinity(0, {core})  # of this thread, and so of the process that it starts
        with tempfile.TemporaryFile() as output:
            ended = run(name, quick=quick, output=output)
            output.seek(0)
            print(output.read().decode(errors="replace"), flush=True)
        cores.put(core)
        return ended

    with ThreadPoolExecutor(max_workers=cores.qsize()) as pool:
        yield from pool.map(one, chosen)


def run(name: str, *, quick: bool, output: IO[bytes] | None = None) -> Ended:
    """Run one benchmark; `output` takes what it prints, if not the terminal."""
    print(f"== {name}", flush=True)
    start_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "claims.json"
        command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(path), *(["--quick"] if quick else [])]
        try:
            code = subprocess.run(
                command, cwd=HERE.parent, timeout=LIMIT_S, check=False, stdout=output, stderr=output
            ).returncode
            found = read(path) if path.exists() else []
        except subprocess.TimeoutExpired:
            print(f"{name} was stopped after {LIMIT_S} s")
            code, found = 1, []
        except ValueError as error:
            print(error)
            code, found = 1, []
    seconds = time.monotonic() - start_s
    print(f"== {name}: {seconds:.0f} s", flush=True)
    return Ended(name, code == 0, found, seconds)


if __name__ == "__main__":
    sys.exit(main())
