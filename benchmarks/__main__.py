"""Runs every benchmark after the other, each in a process of its own, and sums up their claims.

    python -m benchmarks                              # all of them, full size
    python -m benchmarks coder serving --quick        # some, smallest size
    python -m benchmarks --json out/bench.json        # also write the claims there, in place of what the file holds

The exit status is that of the runs, not of the claims: a figure that misses its target is a result and stands in the
summary; a benchmark that crashes, or finds a wrong answer, fails the run. The others still run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from benchmarks.claims import Claim, table

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
SHARED = {"__init__", "__main__", "claims"}
LIMIT_S = 600
"""The most that one benchmark may take; the run of all of them is meant to end within 15 minutes."""


def names() -> list[str]:
    """Name every benchmark: a module of this folder with a ``main`` of its own."""
    found = sorted({path.stem for path in HERE.glob("*.py")} - SHARED)
    return [name for name in found if "\ndef main(" in (HERE / f"{name}.py").read_text(encoding="utf-8")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks that the command line names, or all; returns how many failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Run benchmarks, sum up their claims.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which; default all: {', '.join(names())}")
    parser.add_argument("--quick", action="store_true", help="smallest sizes: answers are checked, figures mean little")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the claims to this file (out/bench.json)")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(names()):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    with tempfile.TemporaryDirectory() as folder:
        collected = Path(folder) / "bench.json"
        chosen = options.names or names()
        failed = [name for name in chosen if not run(name, collected, quick=options.quick)]
        text = collected.read_text(encoding="utf-8") if collected.exists() else "[]\n"
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(text, encoding="utf-8")
    if len(chosen) > 1:
        Console().print(table("All claims", [Claim(**entry) for entry in json.loads(text)]))
    for name in failed:
        print(f"FAILED: python -m benchmarks.{name}")
    return len(failed)


def run(name: str, collected: Path, *, quick: bool) -> bool:
    """Run one benchmark, its claims merged into ``collected``; returns whether it ended well and in time."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(collected), *(["--quick"] if quick else [])]
    print(f"== {name}", flush=True)
    start_s = time.monotonic()
    try:
        well = subprocess.run(command, cwd=HERE.parent, timeout=LIMIT_S, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        print(f"{name} was stopped after {LIMIT_S} s")
        well = False
    print(f"== {name}: {time.monotonic() - start_s:.0f} s", flush=True)
    return well


if __name__ == "__main__":
    sys.exit(main())
