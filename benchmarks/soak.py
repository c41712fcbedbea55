"""Five hundred streams through everything that goes wrong, and the account of every frame at the end.

    make soak                                  # 30 minutes; ARGS="--minutes 5" for less
    python -m benchmarks.soak --minutes 30     # the same; 24 seconds if not said
    python -m benchmarks.soak --quick          # 40 streams, 20 seconds: that it runs

Two servers with one archive, processes of many devices (each a whole agent), agents of their own, and links between
them, all real. Processes are killed, stopped and frozen; connections reset, links black; disks full or read-only;
clocks jump by an hour. Then all is mended, and the records of the devices are held against the archive: every picture
that was taken was answered by the server, or locally, or kept and delivered, or refused with a reason; once, and none
is lost.

The exit status is 1 if one was, or if something ended by itself. What is not said below is in docs/soak.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import claims
from benchmarks.soaking import memory
from benchmarks.soaking.plan import Size
from benchmarks.soaking.stage import STEADY, Outcome, Stage
from headwater.simulations.shipped import shipped_bundle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.claims import Claim
    from benchmarks.soaking.diary import Reconnection
    from benchmarks.soaking.memory import Held

NAME = "soak"
OUT = Path("out/soak")
QUICK = Size(minutes=1 / 3, streams=40, agents=2, links=4, fps=0.5, fault_every_s=1.0)
SHOWN = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak, print the account and the claims; 1 if a frame is not accounted for or something fell over."""
    own = _parser().parse_args(arguments)
    size = QUICK if own.quick else Size(minutes=own.minutes, streams=own.streams)
    size = replace(size, seed=own.seed, leak_mb_per_hour=own.leak)
    began_s = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - began_s:7.1f} s  {line}", flush=True)

    outcome = asyncio.run(Stage(size, own.bundle or shipped_bundle(), own.out, say).run())
    _show(outcome)
    memory_mb = {"every second": outcome.memory_mb, "calm": outcome.held}
    (own.out / "memory.json").write_text(json.dumps(memory_mb), encoding="utf-8")
    claims.report(f"Soak, {size.streams} streams", claims_of(outcome), claims.Options(own.quick, own.json))
    return int(bool(outcome.account.wrong or outcome.fallen))


def _parser() -> argparse.ArgumentParser:
    about = (__doc__ or "").split("\n", maxsplit=1)[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=about)
    add = parser.add_argument
    add("--minutes", type=float, default=0.4, help="with faults; start and end take some more (0.4)")
    add("--streams", type=int, default=500, help="devices, each with a connection (500)")
    add("--seed", type=int, default=0, help="of the faults (0)")
    add("--leak", type=float, default=0.0, metavar="MB", help="to lose an hour on purpose, which must be found (0)")
    add("--quick", action="store_true", help="40 streams and 20 seconds: that it runs; figures mean little")
    add("--bundle", type=Path, metavar="PATH", help="with a local exit; the demo's if not given")
    add("--out", type=Path, default=OUT, metavar="DIR", help=f"for logs, records and the archive; emptied ({OUT})")
    add("--json", type=Path, metavar="PATH", help="merge the claims into this file (out/bench.json)")
    return parser


def _show(outcome: Outcome) -> None:
    account = outcome.account
    print("faults:", ", ".join(f"{count} {kind}" for kind, count in sorted(outcome.faults.items())))
    print("frames:", ", ".join(f"{count} {fate}" for fate, count in sorted(account.fates.items())))
    for cause, waits in sorted(by_cause(outcome.reconnections).items()):
        shares = (f"{share:.0%} within {waits[int(share * (len(waits) - 1))]:.1f} s" for share in (0.5, 0.9, 0.99))
        print(f"back {cause}: {len(waits)} times, {', '.join(shares)}")
    for title, found in (("refused", account.reasons), ("in the logs", outcome.complaints)):
        for text, count in found.most_common(SHOWN):
            print(f"{title}: {count} x {text}")
    for line in [*outcome.fallen, *account.wrong][:SHOWN]:
        print("WRONG:", line)


def by_cause(reconnections: Sequence[Reconnection]) -> dict[str, list[float]]:
    """Seconds that devices took to come back, the shortest first, by what had kept them away."""
    found: dict[str, list[float]] = {}
    for one in sorted(reconnections, key=lambda one: one.seconds):
        cause = f"in spite of {one.lasting}" if one.lasting else f"after {one.cause or 'no fault of its own'}"
        found.setdefault(cause, []).append(one.seconds)
    return found


def claims_of(outcome: Outcome) -> list[Claim]:
    """The figures that are promised."""
    size, account = outcome.size, outcome.account
    waits = sorted(one.seconds for one in outcome.reconnections)
    fates = ", ".join(f"{count} {fate}" for fate, count in sorted(account.fates.items()))
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(outcome.faults.items()))
    tracebacks = sum(count for text, count in outcome.complaints.items() if "Traceback" in text)
    found = [
        claims.at_least(
            NAME,
            f"faults brought about in {outcome.seconds / 60:.3g} minutes, {size.streams} streams",
            outcome.faults.total(),
            unit="faults",
            target=round(outcome.seconds / size.fault_every_s / 2),
            peer=kinds,
        ),
        claims.at_least(
            NAME,
            "frames accounted for by id",
            100 * (1 - len(account.lost) / max(account.frames, 1)),
            unit="%",
            target=100,
            peer=f"{account.frames} frames: {fates}",
        ),
        claims.at_most(
            NAME,
            "frames lost, there twice or unknown",
            len(account.wrong),
            unit="frames",
            target=0,
            peer="records of the devices against the servers' archive",
        ),
        claims.at_most(
            NAME,
            "processes that ended by themselves, and tracebacks in their logs",
            len(outcome.fallen) + tracebacks,
            unit="",
            target=0,
            peer=f"{size.swarms} processes of many devices, {size.agents} agents, 2 servers",
        ),
    ]
    half, slow = (waits[min(int(share * len(waits)), len(waits) - 1)] if waits else None for share in (0.5, 0.99))
    peer = f"{len(waits)} reconnections, half of them within {half:.2g} s" if half is not None else "there were none"
    text = "from a fault's end to being connected again, p99"
    found.append(claims.at_most(NAME, text, slow, unit="s", target=10.0, peer=peer))
    for name, what in ((STEADY, "the server that is never killed"), ("agent0", "an agent that is never killed")):
        found += _memory_claims(what, outcome.held.get(name, []))
    return found


def _memory_claims(what: str, held: Sequence[Held]) -> list[Claim]:
    """Slopes of its pages and of its bytes in use."""
    mapped = f", beside {held[0].mapped_mb:.0f} to {held[-1].mapped_mb:.0f} MB in large blocks" if held else ""
    return [
        _memory_claim(f"memory of {what}", [(one.time_s, one.resident_mb) for one in held]),
        _memory_claim(f"bytes in use of {what}", [(one.time_s, one.in_use_mb) for one in held], mapped),
    ]


def _memory_claim(what: str, points: Sequence[tuple[float, float]], beside: str = "") -> Claim:
    slope, peer = memory.slope_mb_per_hour(points), f"too few calm moments: {len(points)}"
    if slope is not None:
        moments = f"{len(points)} calm moments, {points[0][1]:.1f} to {points[-1][1]:.1f} MB"
        peer = f"with nine in ten between {slope.least:.2g} and {slope.most:.2g}; {moments}{beside}"
    text = f"{what}, slope after warm-up"
    return claims.at_most(NAME, text, None if slope is None else slope.likely, unit="MB/h", target=1.0, peer=peer)


if __name__ == "__main__":
    sys.exit(main())
