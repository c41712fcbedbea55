"""A run of real devices beside the twin's replay of it: two sets of figures, and how far they are apart.

Answer times are compared by their median and their 95th percentile, relative; misses and who answered by points of all
pictures; bytes on the wire, both ways together, relative. Nothing is left out: each picture of the run counts once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Self

import numpy as np
from rich.table import Table

from headwater.server.charts import Chart, page, section, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from headwater.device.record import FrameRecord
    from headwater.simulations.fleet.stage import Played

SOURCES = ("server", "exit", "whole", "nobody")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
"""Of answer times, as the tables show them."""


@dataclass(frozen=True, eq=False)
class Figures:
    """What a run gave; several are put together by :meth:`of_all`."""

    latency_ms: NDArray[np.float64]
    """From the picture to its answer, of those that have one."""
    frames: int
    missed: int
    """Pictures without an answer by their deadline."""
    up_bytes: float
    """On the wire, from the first picture on."""
    down_bytes: float
    sources: Mapping[str, int]
    """Who answered how many; see :data:`SOURCES`."""

    @property
    def p50_ms(self) -> float:
        """Median of the answer times; 0 where nothing was answered."""
        return self.quantile_ms(0.5)

    @property
    def p95_ms(self) -> float:
        """95th percentile of the answer times."""
        return self.quantile_ms(0.95)

    @property
    def miss_share(self) -> float:
        """Of all pictures."""
        return self.missed / self.frames

    @property
    def bytes(self) -> float:
        """Both ways."""
        return self.up_bytes + self.down_bytes

    def quantile_ms(self, share: float) -> float:
        """The answer time that this share does not exceed."""
        return float(np.quantile(self.latency_ms, share)) if len(self.latency_ms) else 0.0

    def share(self, source: str) -> float:
        """Of the pictures that it answered."""
        return self.sources.get(source, 0) / self.frames

    @classmethod
    def of_played(cls, played: Played) -> Self:
        """Of real devices."""
        records = played.records
        return cls(
            latency_ms=np.array([record.latency_ms for record in records if record.source != "none"]),
            frames=len(records),
            missed=sum(not record.in_time for record in records),
            up_bytes=sum(device.up_bytes for device in played.devices),
            down_bytes=sum(device.down_bytes for device in played.devices),
            sources=Counter(map(source_of, records)),
        )

    @classmethod
    def of_all(cls, several: Sequence[Figures]) -> Self:
        """Of several runs together."""
        return cls(
            latency_ms=np.concatenate([each.latency_ms for each in several]),
            frames=sum(each.frames for each in several),
            missed=sum(each.missed for each in several),
            up_bytes=sum(each.up_bytes for each in several),
            down_bytes=sum(each.down_bytes for each in several),
            sources=sum((Counter(each.sources) for each in several), Counter()),
        )


def source_of(record: FrameRecord) -> str:
    """Who answered, one of :data:`SOURCES`."""
    if record.source == "local":
        return "whole" if record.action == "whole" else "exit"
    return "server" if record.source == "edge" else "nobody"


@dataclass(frozen=True, eq=False)
class Comparison:
    """Both, of one run or of several of the same traffic."""

    name: str
    real: Figures
    twin: Figures
    repeats: tuple[Figures, ...] = ()
    """What `real` is put together from, each a run of its own."""

    def real_ms(self, share: float) -> float:
        """The answer time that this share of the real ones does not exceed: that of the middle one of several runs.

        A machine that is disturbed for a moment spoils one run of three, and the middle one does not feel it.
        """
        return median(each.quantile_ms(share) for each in self.repeats or (self.real,))

    @property
    def real_miss_share(self) -> float:
        """Of the middle one of several runs, for the same reason."""
        return median(each.miss_share for each in self.repeats or (self.real,))

    @property
    def real_bytes(self) -> float:
        """Of a picture, of the middle one of several runs: between two modes as good a millisecond decides."""
        return median(each.bytes / each.frames for each in self.repeats or (self.real,))

    @property
    def p50_error(self) -> float:
        """Relative, with its sign: 0.1 where the twin's median is a tenth longer."""
        return _relative(self.twin.p50_ms, self.real_ms(0.5))

    @property
    def p95_error(self) -> float:
        """The same of the 95th percentile."""
        return _relative(self.twin.p95_ms, self.real_ms(0.95))

    @property
    def miss_points(self) -> float:
        """By how many points of all pictures the twin misses more."""
        return 100 * (self.twin.miss_share - self.real_miss_share)

    @property
    def bytes_error(self) -> float:
        """Relative: of a picture, should the twin have run it more than once."""
        return _relative(self.twin.bytes / self.twin.frames, self.real_bytes)

    @property
    def source_points(self) -> float:
        """The largest difference in who answered, in points of all pictures."""
        return 100 * max(abs(self.twin.share(source) - self.real.share(source)) for source in SOURCES)

    def of_a_real_run(self, of: str) -> float:
        """The same error, by its name, of the real run that is farthest from the others: no twin can be better."""
        return max((float(getattr(replace(self, twin=each), of)) for each in self.repeats), key=abs, default=0.0)


def _relative(twin: float, real: float) -> float:
    if real == 0:
        return 0.0 if twin == 0 else float("inf")
    return twin / real - 1


# ------------------------------------------------------------ to look at

_NOTE = (
    "Each cell: of the real run, of the twin. Errors of p50, p95, misses, bytes and who answered. "
    "Of a real run: of the one that is farthest from the others of the same, which no twin can be better than. "
    "Answer times, misses and bytes are those of the middle one of the real runs."
)


def errors(comparisons: Iterable[Comparison], title: str) -> Table:
    """A row a run: what was real, what the twin says, how far apart."""
    made = Table(title=title, title_justify="left")
    made.add_column("run")
    for column in ("frames", "p50 ms", "p95 ms", "missed %", "bytes a frame", "server %", "exit %"):
        made.add_column(f"{column}\nreal, twin", justify="right")
    for column in ("errors of the twin", "of a real run"):
        made.add_column(f"{column}\np50, p95, missed, bytes, source", justify="right")
    for one in comparisons:
        made.add_row(one.name, *_cells(one))
    return made


def beside(one: Comparison) -> Table:
    """The same of one run, a row a figure: narrow enough for any terminal."""
    made = Table(title=f"{one.name}: the twin beside the real devices", title_justify="left")
    made.add_column("")
    for column in ("real", "twin", "error"):
        made.add_column(column, justify="right")
    real, twin = one.real, one.twin
    made.add_row("median answer time", f"{one.real_ms(0.5):.1f} ms", f"{twin.p50_ms:.1f} ms", f"{one.p50_error:+.1%}")
    made.add_row("95th percentile", f"{one.real_ms(0.95):.1f} ms", f"{twin.p95_ms:.1f} ms", f"{one.p95_error:+.1%}")
    made.add_row("missed", f"{one.real_miss_share:.1%}", f"{twin.miss_share:.1%}", f"{one.miss_points:+.1f} points")
    a_frame = f"{one.real_bytes:.1f}", f"{twin.bytes / twin.frames:.1f}"
    made.add_row("bytes a frame, both ways", *a_frame, f"{one.bytes_error:+.2%}")
    for source in SOURCES:
        shares = real.share(source), twin.share(source)
        if any(shares):
            points = 100 * (shares[1] - shares[0])
            made.add_row(f"answered by {source}", *(f"{share:.1%}" for share in shares), f"{points:+.1f} points")
    return made


def distributions(one: Comparison) -> Table:
    """Both distributions of answer times, side by side."""
    made = Table(title=f"{one.name}: answer times, ms", title_justify="left")
    made.add_column("")
    for quantile in QUANTILES:
        made.add_column(f"{100 * quantile:g} %", justify="right")
    for name, quantile_ms in (("real", one.real_ms), ("twin", one.twin.quantile_ms)):
        made.add_row(name, *(f"{quantile_ms(quantile):.1f}" for quantile in QUANTILES))
    return made


def write_html(comparisons: Sequence[Comparison], lead: str, path: str) -> str:
    """The same as a page: a chart and a table a run, without a request to anywhere."""
    head = ["run", "frames", "p50, ms", "p95, ms", "missed, %", "bytes a frame", "server, %", "exit, %"]
    rows = [(one.name, *_cells(one)) for one in comparisons]
    parts = [section("Errors", table([*head, "errors of the twin", "of a real run"], rows), note=_NOTE)]
    parts += [section(one.name, _chart(one)) for one in comparisons]
    return page(path, parts, lead)


def _chart(one: Comparison) -> str:
    chart = Chart("answer time, ms", "share of the answers", log_x=True, percent_y=True)
    shares = np.linspace(0.005, 0.995, 199)
    for name, figures in (("real", one.real), ("twin", one.twin)):
        if len(figures.latency_ms):
            chart.line(name, np.quantile(figures.latency_ms, shares).tolist(), shares.tolist())
    return chart.svg(f"Share of the answers that were there by each time, of {one.name}, real and simulated")


def _cells(one: Comparison) -> list[str]:
    real, twin = one.real, one.twin
    return [
        f"{real.frames}, {twin.frames}",
        *(f"{one.real_ms(share):.1f}, {twin.quantile_ms(share):.1f}" for share in (0.5, 0.95)),
        f"{100 * one.real_miss_share:.1f}, {100 * twin.miss_share:.1f}",
        f"{one.real_bytes:.1f}, {twin.bytes / twin.frames:.1f}",
        *(f"{100 * real.share(who):.1f}, {100 * twin.share(who):.1f}" for who in ("server", "exit")),
        _errors(lambda of: float(getattr(one, of))),
        _errors(one.of_a_real_run) if len(one.repeats) > 1 else "-",
    ]


def _errors(error: Callable[[str], float]) -> str:
    """All of them, each asked for by its name."""
    times = f"{error('p50_error'):+.1%}, {error('p95_error'):+.1%}, {error('miss_points'):+.1f} points"
    return f"{times}, {error('bytes_error'):+.2%}, {error('source_points'):.1f} points"
