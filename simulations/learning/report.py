"""`report.html`: what `headwater server rounds` draws of real rounds, and how alike the virtual devices fared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.server.charts import Chart, cards, page, section, table
from headwater.server.federation.report import curves, every_round
from headwater.server.federation.survey import survey

if TYPE_CHECKING:
    from headwater.server.federation.survey import RoundFacts

_HOUR_S = 3600.0
_SPREAD = (
    "Devices in the order of the figure, from the least to the most: a flat line is a fleet whose devices fare alike. "
    "Accuracy is what devices measured on their own images last (--evaluate-every)."
)
_NAMES = {
    "accuracy": "accuracy on the device's own images",
    "loss": "training loss",
    "believed": "rounds that a device's update counted in",
    "bytes_up": "bytes sent",
    "bytes_down": "bytes received",
    "seconds": "simulated seconds of training",
}


def write_report(out: Path, result: Mapping[str, Any], path: Path) -> None:
    """Write one self-contained HTML file about a simulation that has ended."""
    found = survey(out, devices=False)
    closed = [each for each in found.rounds if each.phase == "closed"]
    asked, devices = result["question"], result["devices"]
    lead = (
        f"{len(closed)} rounds with {devices['all']['devices']} virtual devices, {_hours(result)} simulated hours; "
        f"result {result['hash'][:16]}."
    )
    parts = [
        cards(_headlines(closed, found.bytes_up, found.bytes_down, result)),
        *curves(closed),
        section("Time", _over_time(closed, result), note="Of the devices, simulated."),
        section("Spread", *(_spread(devices, figure) for figure in _NAMES if _has(devices, figure)), note=_SPREAD),
        section("Devices", _groups(devices)),
        section("Every round", every_round(found.rounds)),
        section("Fleet", _settings({"data": asked["data"], **asked["fleet"]})),
        section("Rounds", _settings(asked["rounds"])),
    ]
    path.write_text(page("A simulated fleet learns", parts, lead), encoding="utf-8")


def _headlines(closed: Sequence[RoundFacts], up: int, down: int, result: Mapping[str, Any]) -> list[tuple[str, str]]:
    accuracies = [value for each in closed if (value := each.figure("accuracy")) is not None]
    states = [each["states"] for each in result["rounds"]]
    return [
        *([(f"{accuracies[-1]:.1%}", f"accuracy, from {accuracies[0]:.1%} after a round")] if accuracies else []),
        (f"{up / 1e6:.2f} MB", "sent by devices"),
        (f"{down / 1e6:.2f} MB", "sent to devices"),
        (str(sum(each.get("believed", 0) for each in states)), "updates believed"),
        (str(sum(each.get("refused", 0) for each in states)), "updates refused"),
        (str(sum(each.get("late", 0) + each.get("lost", 0) for each in states)), "late or never"),
    ]


def _hours(result: Mapping[str, Any]) -> str:
    return f"{max((each['ended_s'] or 0.0 for each in result['rounds']), default=0.0) / _HOUR_S:.1f}"


def _over_time(closed: Sequence[RoundFacts], result: Mapping[str, Any]) -> str:
    ended = {each["round"]: each["ended_s"] for each in result["rounds"]}
    points = [(ended[each.round] / _HOUR_S, value) for each in closed if (value := each.figure("accuracy")) is not None]
    chart = Chart("simulated hours", "accuracy", percent_y=True)
    if points:
        chart.line("accuracy", *zip(*points, strict=True))
    return chart.svg("accuracy over simulated time")


def _has(devices: Mapping[str, Any], figure: str) -> bool:
    return any(group.get(figure) for group in devices.values())


def _spread(devices: Mapping[str, Any], figure: str) -> str:
    chart = Chart("devices, %", _NAMES[figure])
    for name, group in devices.items():
        if found := group.get(figure):
            values = found["quantiles"]
            chart.line(name, [100 * index / (len(values) - 1) for index in range(len(values))], values)
    return chart.svg(f"{_NAMES[figure]}, by share of the devices")


def _groups(devices: Mapping[str, Any]) -> str:
    figures = [figure for figure in _NAMES if _has(devices, figure)]
    rows = [
        [name, str(group["devices"]), *(f"{found['mean']:,.3g}" if (found := group.get(f)) else "-" for f in figures)]
        for name, group in devices.items()
    ]
    return table(["devices", "count", *(f"{_NAMES[figure]}, mean" for figure in figures)], rows)


def _settings(values: Mapping[str, Any]) -> str:
    return table(["setting", "value"], [[key, str(value)] for key, value in sorted(values.items())])
