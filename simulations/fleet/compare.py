"""Two fleets side by side: what differs, and whether it is more than chance.

Each side is a scenario, simulated with several seeds, or outcomes that `headwater simulate fleet --json` left, of one
seed each. From seed to seed each side's figures vary; a difference's standard error is that of both means. With one
seed on a side nothing is known of chance, and no error is told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, variance
from typing import TYPE_CHECKING, Any

from rich.table import Table

from headwater.compression.errors import SettingsError
from headwater.simulations.fleet.outcome import ClassOutcome, Outcome
from headwater.simulations.fleet.scenario import Scenario

if TYPE_CHECKING:
    from headwater.simulations.fleet.advice import Runner

CLEAR = 2.0
"""So many standard errors a difference must have to be called clear."""

_MEASURES: dict[str, tuple[Callable[[ClassOutcome], float], str]] = {
    "right": (lambda of: of.accuracy, "{:.2%}"),
    "missed": (lambda of: of.miss_share, "{:.2%}"),
    "answered by the server": (lambda of: of.share("server"), "{:.1%}"),
    "p50 ms": (lambda of: of.latency.quantile(0.5) or math.nan, "{:,.1f}"),
    "p95 ms": (lambda of: of.latency.quantile(0.95) or math.nan, "{:,.1f}"),
    "MB a device and month": (lambda of: 1e3 * of.month_gigabytes, "{:,.2f}"),
    "W a device": (lambda of: of.watts, "{:.3f}"),
}


@dataclass(frozen=True)
class Line:
    """One figure of both sides."""

    devices: str
    """The class, or all."""
    what: str
    a: float
    b: float
    difference: float
    """b less a."""
    error: float | None
    """Its standard error; None where a side has one seed only."""

    @property
    def clear(self) -> bool | None:
        """Whether the difference is more than chance; None where nobody knows."""
        return None if self.error is None else abs(self.difference) > CLEAR * self.error


def gather(what: str, seeds: int, run: Runner) -> list[Outcome]:
    """Outcomes of a side: of a scenario by name or path, or of JSON files, separated by commas.

    Raises :class:`SettingsError` for what is neither, :class:`DataError` for a damaged file.
    """
    paths = [Path(part.strip()) for part in what.split(",")]
    if all(path.suffix == ".json" for path in paths):
        if missing := [path for path in paths if not path.is_file()]:
            raise SettingsError(f"{missing[0]} is not there; it must be a file of `headwater simulate fleet --json`.")
        return [Outcome.from_json(path.read_bytes()) for path in paths]
    scenario = Scenario.load(what)
    return [run(replace(scenario, seed=scenario.seed + number)) for number in range(seeds)]


def lines(a: Sequence[Outcome], b: Sequence[Outcome]) -> list[Line]:
    """Every figure of the classes that both have by name, and of all together."""
    names = [each.name for each in a[0].classes if any(each.name == other.name for other in b[0].classes)]
    found = [_line("all", what, [each.total for each in a], [each.total for each in b]) for what in _MEASURES]
    if len(names) > 1 or len(a[0].classes) > 1:
        for name in names:
            left, right = ([_of(outcome, name) for outcome in side] for side in (a, b))
            found += [_line(name, what, left, right) for what in _MEASURES]
    return found


def as_plain(a: Sequence[Outcome], b: Sequence[Outcome], compared: Sequence[Line]) -> dict[str, Any]:
    """For a program; a figure that is not there is null."""
    rows = [
        {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in asdict(line).items()}
        for line in compared
    ]
    sides = {name: {"scenario": side[0].scenario.name, "seeds": len(side)} for name, side in (("a", a), ("b", b))}
    return {**sides, "lines": [{**row, "clear": line.clear} for row, line in zip(rows, compared, strict=True)]}


def table(a: Sequence[Outcome], b: Sequence[Outcome], compared: Sequence[Line]) -> Table:
    """For people."""
    titles = [f"{side[0].scenario.name}, {len(side)} seed{'s' if len(side) > 1 else ''}" for side in (a, b)]
    shown = Table("devices", "", *titles, "difference", "±", "clear", title_justify="left")
    for line in compared:
        form = _MEASURES[line.what][1]
        clear = {None: "?", True: "yes", False: "no"}[line.clear]
        error = "?" if line.error is None else form.format(line.error)
        values = [_told(form, value) for value in (line.a, line.b, line.difference)]
        shown.add_row(line.devices, line.what, *values, error, clear)
    return shown


def _told(form: str, value: float) -> str:
    return "-" if math.isnan(value) else form.format(value)


def _of(outcome: Outcome, name: str) -> ClassOutcome:
    return next(each for each in outcome.classes if each.name == name)


def _line(devices: str, what: str, a: Sequence[ClassOutcome], b: Sequence[ClassOutcome]) -> Line:
    measure = _MEASURES[what][0]
    left, right = [measure(each) for each in a], [measure(each) for each in b]
    error = None
    if min(len(left), len(right)) > 1:
        error = math.sqrt(variance(left) / len(left) + variance(right) / len(right))
    return Line(devices, what, fmean(left), fmean(right), fmean(right) - fmean(left), error)
