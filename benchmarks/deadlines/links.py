"""The links that deadlines are kept on: generated ones that everybody has, and recordings where a folder is given.

Generated links are drawn from a seed: another seed is another walk of the same kind, or another moment to begin in a
pattern that repeats. Low-power links are modelled after their kind, not after a recording:

============  =====================================================================================================
kind          what
============  =====================================================================================================
constant      Wi-Fi, NB-IoT in good reception, LoRa-like
walks         LTE, LTE-M and NB-IoT between good, fading and nothing (Trace.markov); LTE's way down is faster
drops         the rate falls to a tenth of what it was from one moment to the next, and comes back: three levels
stairs        down by half and up again, every 2 s
lopsided      a narrow way up and a wide one down, and the other way round
spikes        nothing crosses for 0.15 s on average, every 1.5 s: scheduling and hand-overs, both ways apart
loss          the same for 0.25 s, every second: what a lost packet looks like through TCP
black-outs    nothing crosses for 3 s of every 8
============  =====================================================================================================

Recordings are in Mahimahi's format, at their own rate, at 1/20 (LTE-M like) and 1/100 (NB-IoT like), each begun at a
moment that the seed draws.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.simulations.trace import LinkTrace, Trace, load_folder

if TYPE_CHECKING:
    from collections.abc import Callable

FACTORS = {1.0: 0.02, 1 / 20: 0.04, 1 / 100: 0.06}
"""Of the recorded rates, with the delay that each direction then has, s."""
DROP_EVERY_S, FIRST_DROP_S = 5.0, 3.0
"""How long the rate of a link with drops stays at one level, and when it first falls."""


@dataclass(frozen=True)
class BenchLink:
    """A link by name; each seed gives another stretch of it."""

    name: str
    make: Callable[[int], LinkTrace]
    drops: bool = False
    """The rate falls tenfold at :data:`FIRST_DROP_S`, and again every 2 x :data:`DROP_EVERY_S`."""


def generated() -> list[BenchLink]:
    """Every link that needs no recording."""
    return [
        _fixed("wifi", 20e6, 20e6, 0.002),
        _walk("lte", [(0, 0.4), (1e5, 1.5), (1e6, 3), (5e6, 5), (2e7, 4)], 0.025, down=2.0),
        _walk("lte-m", [(0, 0.5), (8e3, 2), (4e4, 3), (1.5e5, 5), (3e5, 5)], 0.04),
        _walk("nb-iot", [(0, 0.5), (2e3, 2), (8e3, 4), (2e4, 5), (6e4, 3)], 0.06),
        _fixed("nb-iot-steady", 3e4, 3e4, 0.04),
        _fixed("lora", 5e3, 5e3, 0.05),
        *(_drop(rate) for rate in (1e6, 3e5, 1e5)),
        _pattern("stairs", [(2, 1e3 * rate) for rate in (200, 100, 50, 20, 10, 5, 10, 20, 50, 100)], 0.03),
        _fixed("narrow-up", 15e3, 2e6, 0.03),
        _fixed("narrow-down", 2e6, 15e3, 0.03),
        _walk("spikes", [(0, 0.15), (3e5, 1.5)], 0.02),
        _walk("loss", [(0, 0.25), (6e4, 1.0)], 0.03),
        _pattern("black-outs", [(5, 3e5), (3, 0)], 0.03),
    ]


def recorded(folder: Path) -> list[BenchLink]:
    """Every recording of a folder at each factor; raises :class:`DataError` where there is none."""
    return [
        BenchLink(f"{link.name} x{_fraction(factor)}", partial(_later, link))
        for factor, delay_s in FACTORS.items()
        for link in load_folder(folder, factor, delay_s)
    ]


def _fixed(name: str, up: float, down: float, delay_s: float) -> BenchLink:
    link = LinkTrace(name, Trace.constant(up), Trace.constant(down), delay_s, delay_s)
    return BenchLink(name, lambda _: link)


def _walk(name: str, states: list[tuple[float, float]], delay_s: float, down: float = 1.0) -> BenchLink:
    def make(seed: int) -> LinkTrace:
        up, back = (Trace.markov(_number(name, way, seed), states) for way in ("up", "down"))
        return LinkTrace(name, up, back.scaled(down), delay_s, delay_s)

    return BenchLink(name, make)


def _drop(rate: float) -> BenchLink:
    name = f"drop-{rate / 1e3:.0f}k"
    trace = Trace.steps([(DROP_EVERY_S, rate), (DROP_EVERY_S, rate / 10)])
    link = LinkTrace(name, trace, trace, 0.02, 0.02).later(DROP_EVERY_S - FIRST_DROP_S)
    return BenchLink(name, lambda _: link, drops=True)


def drop_at(time_s: float) -> int | None:
    """The number of the drop that a link with drops is under at a time; None while it has its full rate."""
    stretch = int((time_s + DROP_EVERY_S - FIRST_DROP_S) / DROP_EVERY_S)
    return stretch // 2 if stretch % 2 else None


def _pattern(name: str, segments: list[tuple[float, float]], delay_s: float) -> BenchLink:
    trace = Trace.steps(segments)
    return BenchLink(name, partial(_later, LinkTrace(name, trace, trace, delay_s, delay_s)))


def _later(link: LinkTrace, seed: int) -> LinkTrace:
    """Begun at a moment that the seed draws, the same in both directions."""
    longest_s = max(link.up.period_s, link.down.period_s)
    return link.later(random.Random(_number(link.name, "", seed)).uniform(0, longest_s))


def _number(name: str, way: str, seed: int) -> int:
    return random.Random(f"{name}/{way}/{seed}").getrandbits(32)


def _fraction(factor: float) -> str:
    return "1" if factor == 1 else f"1/{1 / factor:.0f}"
