"""Hostile bytes: what they bring down, and what they cost.

    python -m benchmarks.hostile
    python -m benchmarks.hostile --quick       # a tenth of the inputs

Every reader of other people's bytes, on the inputs that a seed makes of the kept corpus: the same ones each time. And
small inputs that speak of gigabytes. The search for more, guided by coverage, is `make fuzz`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import claims

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.claims import Claim

NAME = "hostile"
TIMED = False
SECONDS = 8
QUICK_SHARE = 0.1
MOST_GROWN_MB = 64
"""What so many inputs may make the process grow by, all targets and the libraries' own caches together."""
MOST_BOMB_MB = 16
HARMLESS = "a trace of one packet in a week"
"""Looks like one, and is taken: it needs no room."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Try and report."""
    options = claims.options(__doc__, arguments)
    found = [*changed(QUICK_SHARE if options.quick else 1.0), *bombs()]
    return claims.report("Hostile bytes", found, options)


def changed(share: float) -> list[Claim]:
    """Changed inputs of the corpus."""
    found = _said("seeded", str(share))
    for finding in found["findings"]:
        print(f"FINDING {finding}")
    targets = found["targets"]
    inputs, size, taken = (sum(each[at] for each in targets.values()) for at in range(3))
    what = f"{len(targets)} readers, {inputs:,} inputs of {size / 1e6:.2f} MB; {taken:,} of them were right after all"
    text = f"crashes, hangs and undocumented errors of {inputs} hostile inputs"
    grown = claims.at_most(
        *(NAME, f"memory that {inputs} hostile inputs take at most"),
        found["grown_bytes"] / 1e6,
        unit="MB",
        target=MOST_GROWN_MB,
        peer=what,
    )
    return [
        claims.at_least(NAME, "hostile bytes tried, by a seed", size, unit="bytes", target=1e6 * share, peer=what),
        claims.at_most(NAME, text, len(found["findings"]), unit="findings", target=0, peer=what),
        grown,
    ]


def bombs() -> list[Claim]:
    """Small inputs that speak of gigabytes."""
    with tempfile.TemporaryDirectory() as folder:
        used = _said("bombs", folder)
    taken = [name for name, (verdict, _, _) in used.items() if verdict == "taken" and name != HARMLESS]
    most = max(max(allocated, grown) for _, allocated, grown in used.values())
    each = f"{len(used)} inputs that speak of up to 2^63 bytes"
    return [
        claims.at_most(NAME, f"decode bombs taken, of {len(used) - 1}", len(taken), unit="bombs", target=0, peer=each),
        claims.at_most(
            *(NAME, "memory until a decode bomb is refused, the dearest"),
            most / 1e6,
            unit="MB",
            target=MOST_BOMB_MB,
            peer=each,
        ),
    ]


def _said(module: str, *words: str) -> Any:  # noqa: ANN401 - JSON
    """What a module of the fuzz tests prints, in a process of its own: its memory is measured."""
    command = [sys.executable, "-m", f"tests.fuzz.{module}", *words]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


if __name__ == "__main__":
    sys.exit(main())
