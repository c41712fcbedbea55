"""What a real run took, stage by stage, for the twin to draw from: a file that ``headwater simulate calibrate`` writes.

The stages of one frame belong together: a moment at which the processor was busy made all of them long. So a frame of
the twin takes all of its times from one frame that was measured, drawn by lot, and nothing is fitted to a curve:

    taken ── own ── prepare ── head ── exit ── code ── hops/2 ── link up ── hops/2 ─┐
                                                                      queue, serve  │
    answered ─────────────────────────────────────────────── link down ────────────┘

``own`` is what passes on the device beside the stages: its event loop, threads, and until the frame is written.
``hops`` is what a round trip takes beside link and server: gRPC at both ends, and the proxy that stands for the link.
``serve`` is decoding and running in a batch of this frame alone; one of more takes :meth:`Calibration.batch_times` as
long. The width changes the head's time and no other, so a frame of any width tells of all of them: what the slow 5 %
take needs hundreds of frames to be known (:meth:`Calibration.times`). Who shares a processor disturbs one another, so
there are frames of a device alone and of several at a time, and the twin draws from both, in the proportion that its
own load asks for.

Times in ms unless the name says otherwise, sizes in bytes.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from headwater.compression.errors import SettingsError
from headwater.compression.settings import between, read_file
from headwater.simulations.fleet.reading import plain, read
from headwater.simulations.fleet.scenario import Times

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

STAGES = ("own_ms", "prepare_ms", "head_ms", "exit_ms", "code_ms", "hops_ms", "serve_ms")
"""Columns of :meth:`Calibration.times`."""


@dataclass(frozen=True)
class Frames:
    """What frames of one kind took; entry n of each list is of frame n. Stages that it has not are 0."""

    width: float
    action: str
    """send, local or whole; of the last, ``head_ms`` is the whole model's."""
    frames_per_s: float
    """Of all devices together, while these were measured."""
    own_ms: tuple[float, ...]
    prepare_ms: tuple[float, ...]
    head_ms: tuple[float, ...]
    exit_ms: tuple[float, ...]
    code_ms: tuple[float, ...]
    hops_ms: tuple[float, ...]
    serve_ms: tuple[float, ...]
    cold_ms: float = 0.0
    """What the head takes more after a picture that another one ran on, as its weights are no longer at hand."""

    def __post_init__(self) -> None:
        """Check that there are as many of each; raises :class:`SettingsError`."""
        lengths = {len(getattr(self, stage)) for stage in STAGES}
        if len(lengths) > 1 or not self.own_ms:
            raise SettingsError(f"frames of width {self.width:g} have lists of {sorted(lengths)} entries; want as many")

    @property
    def table(self) -> NDArray[np.float64]:
        """A row a frame, its columns :data:`STAGES`."""
        return np.array([getattr(self, stage) for stage in STAGES]).T

    @classmethod
    def of(
        cls, width: float, action: str, frames_per_s: float, rows: Iterable[Sequence[float]], cold_ms: float = 0.0
    ) -> Self:
        """From rows of :data:`STAGES`."""
        columns = {name: tuple(column) for name, column in zip(STAGES, zip(*rows, strict=True), strict=True)}
        return cls(width, action, frames_per_s, **columns, cold_ms=cold_ms)


@dataclass(frozen=True)
class Wire:
    """What crosses the link beside frames and answers, whose bytes are counted by wire.py."""

    connect_up: int
    connect_down: int
    close_up: int
    close_down: int
    report_up: int
    """Of a device's report, without what it gives back of the window."""
    answer_down: float
    """Of an answer to a frame of a number below 128, without what it gives back of the window: mean."""

    def __post_init__(self) -> None:
        """Check the ranges; raises :class:`SettingsError`."""
        for field in fields(self):
            between(field.name, getattr(self, field.name), 0, 100_000)


@dataclass(frozen=True)
class Calibration:
    """See the module's text."""

    bundle: str
    """Short id of the bundle that was measured."""
    machine: str
    """Its processor and cores, for people."""
    made: str
    """When: ISO 8601, UTC."""
    task: str
    """That was asked for."""
    wire: Wire
    slack_ms: float
    """How long before the deadline a device no longer waits for the server, where its exit steps in."""
    batch_ms: Mapping[int, float]
    """What decoding and running takes by frames in the batch, on a machine that does nothing else."""
    server_start_s: float
    device_start_s: float
    frames: tuple[Frames, ...]

    def __post_init__(self) -> None:
        """Check the ranges; raises :class:`SettingsError`."""
        between("slack_ms", self.slack_ms, 0, 60_000)
        if 1 not in self.batch_ms or min(self.batch_ms.values()) <= 0:
            raise SettingsError("batch_ms needs the time of a batch of 1, and times above 0")
        if not self.frames:
            raise SettingsError("a calibration needs [[frames]]")

    @property
    def widths(self) -> tuple[float, ...]:
        """Of the heads that were measured."""
        return tuple(sorted({each.width for each in self.frames if each.action != "whole"}))

    def times(self, width: float, action: str, frames_per_s: float) -> NDArray[np.float64]:
        """What to draw a frame's times from at a load: [N, 7], its columns :data:`STAGES`, each row as likely.

        Frames of all widths are in it, as the width makes nothing longer but the head: each with its head's time times
        what this width's takes of that one's, in the middle. Between two loads that were measured there are frames of
        both, in proportion; beyond them, of the nearest. Raises :class:`SettingsError` where none was measured.
        """
        heads = self._heads_ms(action)
        if width not in heads:
            have = ", ".join(sorted({f"{each.action} at {each.width:g}" for each in self.frames}))
            raise SettingsError(f"nothing was measured of {action} at width {width:g}; there is {have}")
        loads = sorted({each.frames_per_s for each in self.frames if each.action == action})
        tables = [
            self._at_load(action, load, {other: heads[width] / heads[other] for other in heads}) for load in loads
        ]
        at = bisect_left(loads, frames_per_s)
        if at in {0, len(loads)}:
            return tables[min(at, len(loads) - 1)]
        share = (frames_per_s - loads[at - 1]) / (loads[at] - loads[at - 1])
        return _mixed(tables[at - 1], tables[at], share)

    def cold_ms(self, width: float) -> float:
        """What this width's head takes more after a picture that another one ran on."""
        return max((each.cold_ms for each in self.frames if each.width == width), default=0.0)

    def _at_load(self, action: str, load: float, head_times: Mapping[float, float]) -> NDArray[np.float64]:
        """Frames of all widths, with heads that take so many times as long, by width."""
        frames = [each for each in self.frames if (each.action, each.frames_per_s) == (action, load)]
        return np.concatenate([_with_head(each.table, head_times[each.width]) for each in frames])

    def _heads_ms(self, action: str) -> dict[float, float]:
        """Of each width that was measured, the time of its head in the middle, at whatever load."""
        of_width: dict[float, list[float]] = {}
        for each in self.frames:
            if each.action == action:
                of_width.setdefault(each.width, []).extend(each.head_ms)
        return {width: float(np.median(heads_ms)) for width, heads_ms in of_width.items()}

    @property
    def middle(self) -> Times:
        """What a frame takes in the middle of those that were measured at the least load."""
        tables = {width: self.times(width, "send", 0.0) for width in self.widths}
        of_all = np.median(np.concatenate(list(tables.values())), axis=0)
        named = dict(zip(STAGES, of_all.tolist(), strict=True))
        return Times(
            head_ms={width: float(np.median(table[:, STAGES.index("head_ms")])) for width, table in tables.items()},
            **{name: named[name] for name in ("prepare_ms", "exit_ms", "code_ms")},
        )

    def batch_times(self, size: int) -> float:
        """How many times as long a batch of this size takes as one of a single frame; straight between those known."""
        sizes = sorted(self.batch_ms)
        known = [self.batch_ms[each] / self.batch_ms[1] for each in sizes]
        if size <= sizes[-1]:
            return float(np.interp(size, sizes, known))
        return known[-1] * size / sizes[-1]

    def save(self, path: Path) -> None:
        """Write it as TOML."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(_toml(plain(self))) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file; raises :class:`SettingsError`."""
        return read(cls, read_file(path), path.name)


def _with_head(table: NDArray[np.float64], times: float) -> NDArray[np.float64]:
    """The same frames with a head that takes so many times as long."""
    scaled = table.copy()
    scaled[:, STAGES.index("head_ms")] *= times
    return scaled


def _mixed(low: NDArray[np.float64], high: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Rows of both, those of `high` being this share of all."""
    count = len(low) + len(high)
    from_high = round(share * count)
    picked = [_spread(low, count - from_high), _spread(high, from_high)]
    return np.concatenate(picked)


def _spread(rows: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """So many of the rows, evenly over all of them; again from the first where there are too few."""
    at = np.arange(count) * len(rows) // max(count, 1)
    picked: NDArray[np.float64] = rows[at % len(rows)]
    return picked


def _toml(tables: Mapping[str, Any], name: str = "") -> list[str]:
    """Lines of a table: its values first, then the tables in it."""
    lines = [f"{key} = {_value(value)}" for key, value in tables.items() if not _is_table(value)]
    for key, value in tables.items():
        if isinstance(value, dict):
            lines += ["", f"[{name}{key}]", *_toml(value, f"{name}{key}.")]
        elif _is_table(value):
            for row in value:
                lines += ["", f"[[{name}{key}]]", *_toml(row, f"{name}{key}.")]
    return lines


def _is_table(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _value(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return f"{value:.6g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
