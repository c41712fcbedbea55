"""The last act on a terminal: a table that grows, and the same as lines."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from headwater.simulations.demo.act import Act
    from headwater.simulations.demo.tally import Tally

TITLE = "last act: a federated round, and a live swap"


def act_table(act: Act) -> Table:
    """Each device's frames by bundle, and what has come of the round so far."""
    grid = Table(title=_title(act), title_justify="left", title_style="bold", caption="\n".join(facts(act)))
    grid.caption_justify = "left"
    new = f"by {act.new}" if act.new else "by the new one"
    for heading in ("link", "frames", f"by {act.old}", new, "without answer"):
        grid.add_column(heading, justify="left" if heading == "link" else "right", no_wrap=True)
    for tally in act.tallies:
        grid.add_row(*map(Text, _cells(act, tally)))
    return grid


def facts(act: Act) -> list[str]:
    """What is known so far, a sentence each."""
    found = []
    if act.round is not None:
        found += [round_line(act), *(f"{device} was refused: {why}" for device, why in act.refusals.items())]
    if act.refused:
        found.append(f"the gate: {act.refused}; released all the same, with the gate open, so that a swap is seen")
    if act.new:
        found.append(f"bundle {act.old} -> {act.new}: {act.passed}")
    if act.standings:
        found.append(f"devices: {act.standing()}")
    if pair := act.paired():
        found.append(pair_line(*pair))
    return [*found, act.note] if act.note else found


def round_line(act: Act) -> str:
    """What the round took."""
    assert act.round is not None
    one = act.round
    seconds = (one.ended or one.began) - one.began
    used = ", ".join(f"{count} {state}" for state, count in sorted(one.states.items()))
    return (
        f"round: {act.learnt} labelled pictures on each device; {one.bytes_down:,} bytes down, {one.bytes_up:,} up, "
        f"{seconds:.1f} s; replies: {used}"
    )


def pair_line(count: int, before: float, after: float) -> str:
    """Right answers before and after."""
    return f"right on the same {count} (pictures x devices): {before:.1%} before, {after:.1%} after"


def lost_line(act: Act) -> str:
    """Frames by bundle, and those that were lost."""
    new = f", {len(act.answered(act.new))} by {act.new}" if act.new else ""
    return f"{len(act.records)} frames: {len(act.answered(act.old))} answered by {act.old}{new}, {act.lost} lost"


def _title(act: Act) -> str:
    if not act.spans:
        return f"{TITLE}: starting two devices"
    span = act.spans[-1]
    if span.ended_s is not None:
        return TITLE
    return f"{TITLE}: {span.name}, {time.monotonic() - span.began_s:.0f} s"


def _cells(act: Act, tally: Tally) -> list[str]:
    by = [sum(record.bundle == bundle for record in tally.answered) for bundle in (act.old, act.new)]
    return [tally.title, *map(str, (len(tally.records), *by, len(tally.records) - len(tally.answered)))]
