"""`rounds.html`: what rounds brought, what they cost, and who took part; one file, no script."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.server.charts import Chart, cards, page, section, table
from headwater.server.federation.view import device_row

if TYPE_CHECKING:
    from headwater.server.federation.survey import RoundFacts, Survey

MOST_LINES = 8
"""Devices that have a line of their own in a chart; there are as many colours."""


def write_report(found: Survey, path: Path) -> None:
    """Write one self-contained HTML file."""
    closed = [each for each in found.rounds if each.phase == "closed"]
    began = dt.datetime.fromtimestamp(found.began, tz=dt.UTC)
    lead = (
        f"Run {found.run} from bundle {found.bundle}, begun {began:%Y-%m-%d %H:%M} UTC, {found.status}: {len(closed)} "
        f"of {found.settings['rounds']} rounds with {len(found.devices)} devices."
    )
    parts = [
        cards(_headlines(found, closed)),
        *curves(closed),
        section("Memory", _memory(found), note="Peak memory of training above what the process takes before it."),
        section("Devices", _loss_by_device(found), _devices(found)),
        section("Refused", _refused(found)),
        section("Every round", every_round(found.rounds)),
        section("Settings", table(["setting", "value"], [[k, str(v)] for k, v in sorted(found.settings.items())])),
    ]
    path.write_text(page(f"Rounds of run {found.run}", parts, lead), encoding="utf-8")


def curves(closed: Sequence[RoundFacts]) -> list[str]:
    """Sections of what rounds brought and cost, one after the other."""
    return [
        section("Accuracy", _figures(closed, "accuracy"), _over_bytes(closed), note=_ACCURACY),
        section("Loss", _losses(closed)),
        section("Bytes", _bytes(closed), note="Of all devices together, in each round: replies up, messages down."),
    ]


_ACCURACY = (
    "Measured by the server on images that no device has, or, where it has none, by the devices on their own. "
    "The second chart has the same over the bytes that devices have sent so far."
)


def _headlines(found: Survey, closed: Sequence[RoundFacts]) -> list[tuple[str, str]]:
    accuracies = [value for each in closed if (value := each.figure("accuracy")) is not None]
    refused = sum(each.states.get("refused", 0) for each in found.devices)
    megabyte = 1e6
    return [
        *([(f"{accuracies[-1]:.1%}", f"accuracy, from {accuracies[0]:.1%}")] if accuracies else []),
        (f"{found.bytes_up / megabyte:.2f} MB", "sent by devices"),
        (f"{found.bytes_down / megabyte:.2f} MB", "sent to devices"),
        (str(sum(each.states.get("believed", 0) for each in found.devices)), "updates believed"),
        (str(refused), "updates refused"),
    ]


def _figures(closed: Sequence[RoundFacts], name: str) -> str:
    chart = Chart("round", name, percent_y=True)
    for label, where, key in (
        ("server, widest", "measured", name),
        ("server, narrowest", "measured", f"{name}-narrow"),
        ("devices", "evaluated", name),
    ):
        points = [(each.round, each.facts[where][key]) for each in closed if key in each.facts.get(where, {})]
        if points:
            chart.line(label, *zip(*points, strict=True))
    return chart.svg(f"{name} after each round")


def _over_bytes(closed: Sequence[RoundFacts]) -> str:
    so_far = itertools.accumulate(each.bytes_up for each in closed)
    points = [
        (sent, value)
        for each, sent in zip(closed, so_far, strict=True)
        if (value := each.figure("accuracy")) is not None
    ]
    chart = Chart("bytes sent by devices so far", "accuracy", log_x=True, percent_y=True)
    if points:
        chart.line("accuracy", *zip(*points, strict=True))
    return chart.svg("accuracy over the bytes that devices have sent")


def _losses(closed: Sequence[RoundFacts]) -> str:
    chart = Chart("round", "loss")
    for label, points in (
        ("training, on devices", [(each.round, each.facts["loss"]) for each in closed if "loss" in each.facts]),
        (
            "server",
            [
                (each.round, each.facts["measured"]["loss"])
                for each in closed
                if "loss" in each.facts.get("measured", {})
            ],
        ),
    ):
        if points:
            chart.line(label, *zip(*points, strict=True))
    return chart.svg("loss of each round")


def _bytes(closed: Sequence[RoundFacts]) -> str:
    rounds = [each.round for each in closed]
    chart = Chart("round", "bytes").line("up", rounds, [each.bytes_up for each in closed])
    return chart.line("down", rounds, [each.bytes_down for each in closed]).svg("bytes of each round, up and down")


def _memory(found: Survey) -> str:
    chart = Chart("round", "MB")
    with_peaks = sorted((each for each in found.devices if each.peaks), key=lambda each: -max(p for _, p in each.peaks))
    for each in with_peaks[:MOST_LINES]:
        chart.line(each.device, [number for number, _ in each.peaks], [peak / 1e6 for _, peak in each.peaks])
    return chart.svg("peak memory of the devices that take most, in each round")


def _loss_by_device(found: Survey) -> str:
    chart = Chart("round", "training loss")
    for each in [each for each in found.devices if each.losses][:MOST_LINES]:
        chart.line(each.device, *zip(*each.losses, strict=True))
    return chart.svg("training loss of each device by round")


def _devices(found: Survey) -> str:
    head = ["device", "believed", "late", "width", "part", "time a round", "most memory", "up", "down", "refused"]
    return table(head, [device_row(each) for each in found.devices])


def _refused(found: Survey) -> str:
    rows = [
        [each.device, ", ".join(f"{word} {count}" for word, count in sorted(each.refusals.items())), each.last_refusal]
        for each in found.devices
        if each.refusals
    ]
    return table(["device", "reasons", "the last one"], rows) if rows else "<p>No update was refused.</p>"


def every_round(rounds: Sequence[RoundFacts]) -> str:
    """A table, a line a round."""
    rows = [
        [
            str(each.round),
            each.phase,
            ", ".join(f"{count} {state}" for state, count in sorted(each.states.items())),
            f"{each.bytes_up:,}",
            f"{each.bytes_down:,}",
            "-" if each.figure("accuracy") is None else f"{each.figure('accuracy'):.1%}",
        ]
        for each in rounds
    ]
    return table(["round", "phase", "devices", "bytes up", "bytes down", "accuracy"], rows)
