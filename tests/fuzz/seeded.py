"""Every target on inputs that a seed makes of the corpus: the same ones each time, on any machine, in seconds.

    python -m tests.fuzz.seeded 1.0        # 12,750 inputs; 0.1 a tenth of them

Prints JSON: by target inputs, bytes and how many were taken; the findings, each with its input in hex; and by how many
bytes the process grew at most. It is no search, as atheris' is (run.py), and no choice, as hypothesis' is; it is for
`benchmarks.hostile` to count.
"""

from __future__ import annotations

import json
import random
import resource
import signal
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.compression import settings
from tests.fuzz.harness import MAX_BYTES, MEMORY_BYTES, SECONDS_EACH
from tests.fuzz.targets import MODULES, load

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.fuzz.targets import Target

INPUTS = {"integers": 250, "config": 250, "scenario": 250}
"""Of the targets that take longest; of each other, `REST`."""
REST = 1000
ODD = (b"", b"\x00", b"\xff" * 4, b"\xff" * 8, b"\x00" * 8, b"\xff\xff\xff\x7f", b"1e999", b"-1", b"nan", b"[" * 40)


class StallError(Exception):
    """An input took longer than any may."""


def changed(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds after some cuts, swaps, flips and insertions."""
    data = rng.choice(seeds)
    for _ in range(rng.randint(1, 4)):
        begin = rng.randint(0, len(data))
        end = min(len(data), begin + rng.choice((0, 1, 1, 2, 4, 8, 64)))
        there = data[begin:end]
        put = rng.choice((rng.choice(ODD), there * 2, rng.randbytes(len(there)), bytes(one ^ 1 for one in there)))
        data = data[:begin] + put + data[end:]
    return data[: max(MAX_BYTES, *map(len, seeds))]


def tried(target: Target, count: int) -> tuple[tuple[int, int, int], list[str]]:
    """Inputs, their bytes and how many were taken; the findings."""
    rng, size, taken, findings = random.Random(target.name), 0, 0, []
    for _ in range(count):
        data = changed(rng, [*target.seeds, *target.kept])
        size += len(data)
        try:
            with _no_longer():
                taken += target.run(data)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            findings.append(f"{target.name}: {error!r} of {data.hex()}")
    return (count, size, taken), findings


@contextmanager
def _no_longer() -> Iterator[None]:
    def ring(*_: Any) -> None:  # noqa: ANN401 - signal and frame
        raise StallError(f"more than {SECONDS_EACH} s")

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS_EACH)
    try:
        yield
    finally:
        signal.alarm(0)


def main(share: float) -> None:
    """Try all of them; `share` of the inputs."""
    settings.entry_points = cache(settings.entry_points)  # looks through all that is installed, each time
    targets = [load(name) for name in MODULES]
    for target in targets:
        assert all(target.run(seed) for seed in target.seeds)  # so that what is imported late is there
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    before = peak_bytes()
    found: dict[str, tuple[int, int, int]] = {}
    findings: list[str] = []
    for target in targets:
        found[target.name], more = tried(target, round(share * INPUTS.get(target.name, REST)))
        findings += more
    print(json.dumps({"targets": found, "findings": findings, "grown_bytes": peak_bytes() - before}))


def peak_bytes() -> int:
    """The most memory that this process has had."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10


if __name__ == "__main__":
    main(float(sys.argv[1]))
