"""Rounds on a terminal: how far each one is, who is waited for, who was refused and why."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from headwater.server.federation.survey import DeviceFacts, RoundFacts, Survey

LAST = 12
"""Rounds that are shown; the report has all."""


def shown(found: Survey, now: float) -> RenderableType:
    """A run as it stands."""
    return Group(_title(found, now), _rounds(found, now), _devices(found))


def follow(read: Callable[[], Survey], console: Console, every_s: float = 0.5) -> None:
    """Show a run until it ends, or Ctrl-C."""
    with Live(console=console, auto_refresh=False) as live:
        while True:
            found = read()
            live.update(shown(found, time.time()), refresh=True)
            if found.status != "running":
                return
            time.sleep(every_s)


def _table() -> Table:
    """One that fits a terminal of 80 columns."""
    return Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))


def _title(found: Survey, now: float) -> Text:
    done = sum(each.phase == "closed" for each in found.rounds)
    took_s = (found.ended or now) - found.began
    text = Text(f"run {found.run}  ", style="bold")
    text.append(f"bundle {found.bundle}  ", style="dim")
    text.append(f"{done} of {found.settings['rounds']} rounds  {found.status}", style="cyan")
    text.append(f"  {_duration(took_s)}  {_bytes(found.bytes_up)} up  {_bytes(found.bytes_down)} down", style="dim")
    return text.append(f"  {found.detail}") if found.detail else text


def _rounds(found: Survey, now: float) -> Table:
    table = _table()
    for name in ("round", "phase", "used", "refused", "late", "wait", "up", "down", "loss", "acc.", "time"):
        table.add_column(name, justify="left" if name == "phase" else "right", no_wrap=True)
    for each in found.rounds[-LAST:]:
        table.add_row(*_round(each, now))
    return table


def _round(each: RoundFacts, now: float) -> list[str]:
    count = each.states.get
    waiting = count("sent", 0)
    return [
        str(each.round),
        each.phase,
        str(count("believed", 0) + count("answered", 0)),
        str(count("refused", 0) or "-"),
        str((count("late", 0) + count("lost", 0)) or "-"),
        str(waiting or "-"),
        _bytes(each.bytes_up),
        _bytes(each.bytes_down),
        _number(each.facts.get("loss"), ".3f"),
        _number(each.figure("accuracy"), ".1%"),
        _duration((each.ended or now) - each.began),
    ]


def line(each: RoundFacts, rounds: int) -> str:
    """A round that has ended, for a log."""
    count = each.states.get
    used, late = count("believed", 0) + count("answered", 0), count("late", 0) + count("lost", 0)
    figures = [
        f"{name} {_number(value, form)}"
        for name, value, form in (
            ("accuracy", each.figure("accuracy"), ".1%"),
            ("training loss", each.facts.get("loss"), ".3f"),
        )
        if value is not None
    ]
    others = [f"{many} {what}" for what, many in (("refused", count("refused", 0)), ("late", late)) if many]
    devices = ", ".join([f"{used} of {sum(each.states.values())} devices", *others])
    took = f"{(each.ended or each.began) - each.began:.1f} s"
    travelled = f"{_bytes(each.bytes_up)} up, {_bytes(each.bytes_down)} down"
    return "; ".join([f"round {each.round} of {rounds}: {took}", devices, travelled, *figures])


def _devices(found: Survey) -> Table:
    table = _table()
    for name in ("device", "used", "late", "width", "part", "time", "memory", "up", "down", "refused"):
        table.add_column(name, justify="left" if name in {"device", "part", "refused"} else "right", no_wrap=True)
    for each in found.devices:
        table.add_row(*device_row(each))
    return table


def device_row(each: DeviceFacts) -> list[str]:
    """A device's figures as text."""
    refusals = ", ".join(f"{word} {count}" for word, count in sorted(each.refusals.items()))
    return [
        each.device,
        str(each.states.get("believed", 0)),
        str((each.states.get("late", 0) + each.states.get("lost", 0)) or "-"),
        _number(each.width, "g"),
        each.part or "-",
        _number(sum(each.seconds) / len(each.seconds) if each.seconds else None, ".1f", " s"),
        _bytes(int(max(peak for _, peak in each.peaks))) if each.peaks else "-",
        _bytes(each.bytes_up),
        _bytes(each.bytes_down),
        refusals or "-",
    ]


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}{unit}"


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes}:{rest:02}"
