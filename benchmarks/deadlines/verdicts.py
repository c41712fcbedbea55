"""The claims: what the issue promised, from what became of the frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import claims
from benchmarks.deadlines.links import drop_at
from benchmarks.deadlines.plan import MEAN, OURS, PRESENT, SERVER
from benchmarks.deadlines.tally import row

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.claims import Claim
    from benchmarks.deadlines.tally import Fate, Outcome

NAME = "deadline"


def over_links(outcomes: Sequence[Outcome]) -> list[Claim]:
    """Misses, answers and accuracy, over all links and deadlines together."""
    ours = [one for one in outcomes if one.contender == OURS]
    mean = [one for one in outcomes if one.contender == MEAN]
    there = {(one.link, one.deadline_ms) for one in mean}
    both = row(OURS, (one for one in ours if (one.link, one.deadline_ms) in there))
    all_, other = row(OURS, ours), row(MEAN, mean)
    links = len({one.link for one in ours})
    where = f"{links} links, deadlines {', '.join(map(str, sorted({one.deadline_ms for one in ours})))} ms"
    peer = f"{MEAN}, on {len({one.link for one in mean})} of the links: {other.missed:.1f} %, ours there"
    peer += f" {both.missed:.1f} %; the server answers {all_.edge:.0f} %, of the oracle's {all_.oracle_edge:.0f} %"
    return [
        claims.at_most(NAME, f"misses, {where}", all_.missed, unit="%", target=1, peer=peer),
        claims.at_least(NAME, "frames answered", 100 - all_.unanswered, unit="%", target=100, peer="none"),
        claims.at_most(
            NAME,
            "right answers below the oracle's",
            all_.oracle - _right(ours),
            unit="points",
            target=1,
            peer=f"greedy oracle that knows the link: {all_.oracle:.1f} %",
        ),
    ]


def without_exit(outcomes: Iterable[Outcome]) -> list[Claim]:
    """Misses and accuracy where the device has no answer of its own: with a good exit, the claims above come easily.

    The peer of the misses is, beside the oracle, one who knows the present rate: whether the target can be reached.
    """
    runs = list(outcomes)
    alone, present = ([one for one in runs if one.contender == who] for who in (SERVER, PRESENT))
    found, told = row(SERVER, alone), row(PRESENT, present)
    peer = f"oracle without an exit: {found.oracle:.1f} % right, an answer to {found.oracle_edge:.1f} % of the frames"
    knows = f"one who knows the present rate, reckoned, hedged: {told.missed:.1f} % missed, "
    knows += f"{told.oracle - _right(present):.1f} points below the oracle"
    return [
        claims.at_most(NAME, "misses without a local exit", found.missed, unit="%", target=1, peer=f"{peer}; {knows}"),
        claims.at_most(
            NAME,
            "right answers below the oracle's, without a local exit",
            found.oracle - _right(alone),
            unit="points",
            target=1,
            peer=peer,
        ),
    ]


def _right(outcomes: Iterable[Outcome]) -> float:
    """Of all frames, those without an answer included."""
    every = [fate.right for outcome in outcomes for fate in outcome.fates]
    return 100 * sum(every) / max(len(every), 1)


def after_drops(outcomes: Iterable[Outcome], dropping: Iterable[str], who: str = OURS) -> list[Claim]:
    """How many frames it takes after a tenfold drop of the rate; the worst of all drops."""
    names, of = set(dropping), ", without a local exit" if who == SERVER else ""
    runs = [one for one in outcomes if one.contender == who and one.link in names]
    drops = [after for one in runs for after in _after_each_drop(one.fates)]
    peer = f"the worst of {len(drops)} drops" if drops else "no link with a drop was run"
    missed = max((back_in_time(after) for after in drops), default=None)
    adapted = max((fitting_again(after) for after in drops), default=None)
    in_time, fits = f"frames after a tenfold drop until in time{of}", f"frames then until the choice fits the link{of}"
    return [
        claims.at_most(NAME, in_time, missed, unit="frames", target=3, peer=peer),
        claims.at_most(NAME, fits, adapted, unit="frames", target=3, peer=peer),
    ]


def _after_each_drop(fates: Sequence[Fate]) -> list[list[Fate]]:
    """The frames of each stretch at the low rate."""
    stretches: dict[int, list[Fate]] = {}
    for fate in fates:
        drop = drop_at(fate.due_s)
        if drop is not None:
            stretches.setdefault(drop, []).append(fate)
    return list(stretches.values())


def back_in_time(after: Sequence[Fate]) -> int:
    """Frames until two in a row are in time; what is missed later has other reasons, and counts among all misses."""
    return _until([not fate.missed for fate in after])


def fitting_again(after: Sequence[Fate]) -> int:
    """Frames until two in a row are answered as was meant: by the server in time, or here without trying."""
    return _until([fate.in_time and (fate.source == "edge" or fate.action != "send") for fate in after])


def _until(well: Sequence[bool]) -> int:
    """How many come before the first two in a row that are well."""
    return next((at for at in range(len(well)) if all(well[at : at + 2])), len(well))
