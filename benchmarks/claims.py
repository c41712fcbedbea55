"""What every benchmark says at its end: a list of claims, each a figure beside its target.

A benchmark is a module of its own, run as ``python -m benchmarks.NAME`` from the repository's root:

    python -m benchmarks.coder                         # prints the table, full size
    python -m benchmarks.coder --quick                 # the smallest size, seconds: what the tests run
    python -m benchmarks.coder --json out/bench.json   # also merges its claims into that file

It asserts that the answers are right before it times anything, measures its peer in the same run and claims a ratio.
A peer that cannot be installed is a claim too: value and holds are null and ``peer`` says why.

    def main(arguments: Sequence[str] | None = None) -> int:
        options = claims.options(__doc__, arguments)
        speed = claims.at_least("coder", "encode, 50 bytes", 2.1, unit="x", target=1.3, peer="constriction 0.5.0")
        return claims.report("Coder", [speed], options)
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Direction = Literal["min", "max"]
_WORDS: dict[Direction, str] = {"min": "at least", "max": "at most"}


@dataclass(frozen=True)
class Claim:
    """One measured figure beside its target: an object of exactly these keys in ``bench.json``."""

    benchmark: str
    """The benchmark's module name: ``coder``."""
    claim: str
    """What was measured, in a few words that stand alone: ``encode speed, 500 bytes``."""
    value: float | None
    """The figure; null where it could not be measured."""
    unit: str
    """The unit of value and target: ``x`` for a ratio, ``bytes``, ``ms``, ``%``."""
    target: float
    """The figure that was promised."""
    direction: Direction
    """``min``: the value has to be at least the target; ``max``: at most."""
    holds: bool | None
    """Whether it is on that side; null where there is no value."""
    peer: str
    """What it was compared with, and its version; where the peer is missing, why."""


def at_least(benchmark: str, claim: str, value: float | None, *, unit: str, target: float, peer: str) -> Claim:
    """Claim that `value` reaches `target`; None where it could not be measured, with the reason in `peer`."""
    holds = None if value is None else bool(value >= target)
    return Claim(benchmark, claim, _rounded(value), unit, target, "min", holds, peer)


def at_most(benchmark: str, claim: str, value: float | None, *, unit: str, target: float, peer: str) -> Claim:
    """Claim that `value` stays within `target`; None where it could not be measured, with the reason in `peer`."""
    holds = None if value is None else bool(value <= target)
    return Claim(benchmark, claim, _rounded(value), unit, target, "max", holds, peer)


def _rounded(value: float | None) -> float | None:
    """Four significant digits: more would be noise, and would make every run of a report differ in every line."""
    return None if value is None else float(f"{value:.4g}")


class Options(NamedTuple):
    """What every benchmark can be told on its command line."""

    quick: bool
    """The smallest size, for the tests: the answers are checked, the figures mean little."""
    json: Path | None
    """Where to merge the claims as JSON."""
    full: bool = False
    """The size that the claim's text names, where all benchmarks together have no time for it."""


def options(doc: str | None, arguments: Sequence[str] | None = None, *, full: str = "") -> Options:
    """Read ``--quick`` and ``--json PATH``; `doc` is the benchmark's own docstring, its first line the help text.

    ``full``: what ``--full`` does; empty where there is none.
    """
    parser = argparse.ArgumentParser(description=(doc or "").strip().split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smallest size; checks answers, figures mean little")
    parser.add_argument("--json", type=Path, metavar="PATH", help="merge the claims into this file (out/bench.json)")
    if full:
        parser.add_argument("--full", action="store_true", help=full)
    parsed = parser.parse_args(arguments)
    return Options(parsed.quick, parsed.json, bool(full) and parsed.full)


def report(title: str, claims: Sequence[Claim], options: Options) -> int:
    """Print the claims and merge them into the file that was named; the exit status of a benchmark's ``main``.

    The status is 0 whether the claims hold or not: a figure that misses its target is a result, not a crash. Who
    wants to stop on one reads ``holds``.
    """
    Console().print(table(title, claims))
    if options.json is not None:
        merge(claims, options.json)
    return 0


def table(title: str, claims: Iterable[Claim]) -> Table:
    """Lay the claims out, one a row."""
    result = Table(title=title, title_justify="left")
    for column, justify in (
        ("claim", "left"),
        ("value", "right"),
        ("target", "right"),
        ("holds", "left"),
        ("peer", "left"),
    ):
        result.add_column(column, justify=justify)  # type: ignore[arg-type]
    for claim in claims:
        value = "-" if claim.value is None else f"{claim.value:g} {claim.unit}"
        holds = {True: "[green]yes", False: "[red]NO", None: "[yellow]not measured"}[claim.holds]
        result.add_row(
            claim.claim, value, f"{_WORDS[claim.direction]} {claim.target:g} {claim.unit}", holds, claim.peer
        )
    return result


def read(path: Path) -> list[Claim]:
    """The claims of a file; raises ValueError for a row that is none, with what is wrong with it."""
    return [_claim(row) for row in json.loads(path.read_text(encoding="utf-8"))]


def _claim(row: dict[str, Any]) -> Claim:
    name, wanted = f"{row.get('benchmark')}, {row.get('claim')}", [field.name for field in fields(Claim)]
    if sorted(row) != sorted(wanted):
        raise ValueError(f"the row of {name} has {', '.join(row)}; want {', '.join(wanted)}")
    claim = Claim(**row)
    if claim.direction not in _WORDS or (claim.holds is None) is not (claim.value is None):
        raise ValueError(f"the row of {name} has value {claim.value}, holds {claim.holds}, {claim.direction}")
    return claim


def merge(claims: Sequence[Claim], path: Path) -> None:
    """Put the claims into the JSON list at `path`, in place of all earlier ones of the same benchmarks.

    The file is replaced in one step, so that a benchmark that is stopped half way leaves the older one whole.
    """
    replaced = {claim.benchmark for claim in claims}
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    merged = [entry for entry in earlier if entry["benchmark"] not in replaced] + [asdict(claim) for claim in claims]
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, suffix=".json", delete=False) as file:
        json.dump(merged, file, indent=1)
    Path(file.name).replace(path)
