"""One target under atheris, coverage-guided; run.py starts it, a process a target.

    python -m tests.fuzz.harness TARGET FOLDER SECONDS

FOLDER gets `found`, the inputs that reached something new, `counts`, `now`, the input that runs, and `crash-*` where
an input was a finding.
"""

from __future__ import annotations

import faulthandler
import mmap
import resource
import signal
import struct
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

MEMORY_BYTES = 3 << 30
"""Of the process: an input for which more is asked is a finding."""
SECONDS_EACH = 25
"""For one input, with the tracing that makes all of it ten times as slow."""
MAX_BYTES = 4096
"""Of an input."""
WORDS = Path(__file__).with_name("words.dict")
_COUNTS = struct.Struct("<QQQ")
_LENGTH = struct.Struct("<Q")


class Counts(NamedTuple):
    """What a run has tried."""

    inputs: int
    """Strings of bytes that were tried."""
    size: int
    """Bytes of all together."""
    taken: int
    """Of the inputs, how many were taken for what they should be."""


def read_counts(folder: Path) -> Counts:
    """Of a run that ended, however it did."""
    path = folder / "counts"
    data = path.read_bytes() if path.exists() else b""
    return Counts(*_COUNTS.unpack(data)) if data else Counts(0, 0, 0)


def read_now(folder: Path) -> bytes:
    """The input that ran last, of a run that ended, however it did."""
    path = folder / "now"
    data = path.read_bytes() if path.exists() else bytes(_LENGTH.size)
    return data[_LENGTH.size :][: _LENGTH.unpack_from(data)[0]]


def main(name: str, folder: Path, seconds: int) -> None:
    """Fuzz until the time is over; libFuzzer ends the process, and prints what it found."""
    import atheris

    with atheris.instrument_imports(include=["headwater", "tests.fuzz"]):
        from headwater.compression import settings
        from tests.fuzz.targets import CORPUS, load

        target = load(name)
    name = target.name
    settings.entry_points = cache(settings.entry_points)  # looks through all that is installed, each time
    found, seeds = folder / "found", folder / "seeds"
    for each in (found, seeds):
        each.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (seeds / f"{number}").write_bytes(seed)
    longest = max(MAX_BYTES, *map(len, (*target.seeds, *target.kept)))
    counted, counts = _shared(folder / "counts", _COUNTS.size), [0, 0, 0]
    now = _shared(folder / "now", _LENGTH.size + longest)

    def one(data: bytes) -> None:
        counts[0] += 1
        counts[1] += len(data)
        counted[:] = _COUNTS.pack(*counts)
        kept = data[:longest]
        now[: _LENGTH.size + len(kept)] = _LENGTH.pack(len(kept)) + kept
        counts[2] += target.run(data)

    faulthandler.register(signal.SIGQUIT)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    flags = {
        "max_total_time": seconds,
        "max_len": longest,
        "timeout": SECONDS_EACH,
        "dict": WORDS,
        "artifact_prefix": f"{folder}/",
        "print_final_stats": 1,
        "verbosity": 1,
    }
    kept = [str(CORPUS / name)] if target.kept else []
    given = [f"-{flag}={value}" for flag, value in flags.items()]
    atheris.Setup([sys.argv[0], *given, str(found), str(seeds), *kept], one)
    atheris.Fuzz()


def _shared(path: Path, size: int) -> mmap.mmap:
    """A file that holds what was last written to it, even if the process is killed."""
    path.write_bytes(bytes(size))
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), size)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
