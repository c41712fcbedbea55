"""Whether a bundle is good enough to be published: its figures on held-out images against those of the one in use.

Both were measured with the graphs, tables and frames that they ship (server/training/measure.py), mode by mode. A mode
is compared with the mode of the same width and gain, task by task. What was measured on other images is not compared:
then there is nothing to publish by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwater.compression.errors import RolloutError
from headwater.compression.settings import between

if TYPE_CHECKING:
    from headwater.compression.manifest import Manifest, Mode


IMAGES = ("name", "split")
"""What a manifest knows its held-out images by."""


@dataclass(frozen=True)
class Bounds:
    """How much worse a bundle may be."""

    max_regression: float = 1.0
    """Points of accuracy (dB of a picture) that any task may lose in any mode."""
    max_growth: float = 10.0
    """Per cent that a mean frame of any mode may grow."""

    def __post_init__(self) -> None:
        """Check the ranges; raises :class:`SettingsError`."""
        between("max_regression", self.max_regression, 0, 100)
        between("max_growth", self.max_growth, 0, 10_000)


@dataclass(frozen=True)
class Passed:
    """What was found of a bundle that may be published."""

    worst: float
    """Points that the task and mode that lost most have lost; below 0 where all have gained."""
    mean: float
    """Mean change over tasks and modes, points."""
    growth: float
    """Mean change of a frame's bytes, per cent."""


def check(new: Manifest, old: Manifest, bounds: Bounds) -> Passed:
    """Raise :class:`RolloutError` unless a bundle may take the place of another."""
    _comparable(new, old)
    losses, growths, wrong = [], [], []
    for mode, before in _pairs(new, old):
        for task in old.tasks:
            lost = _lost(mode, before, task.name)
            losses.append(lost)
            if lost > bounds.max_regression + 1e-9:
                wrong.append((lost, f"{task.name} loses {lost:.2f} points in {_name(mode)}"))
        grown = 100 * (mode.mean_bytes / before.mean_bytes - 1) if before.mean_bytes else 0.0
        growths.append(grown)
        if grown > bounds.max_growth + 1e-9:
            wrong.append((grown, f"a frame grows by {grown:.1f} % in {_name(mode)}"))
    if wrong:
        worst = "; ".join(text for _, text in sorted(wrong, reverse=True)[:3])
        raise RolloutError(
            f"the bundle is worse than the one in use: {worst} ({len(wrong)} such); allowed are "
            f"{bounds.max_regression:g} points (--max-regression) and {bounds.max_growth:g} % (--max-growth)"
        )
    return Passed(max(losses), -sum(losses) / len(losses), sum(growths) / len(growths))


def same_images(new: Manifest, old: Manifest) -> bool:
    """Whether the figures of two bundles are of the same images."""
    return all(new.data.get(key) == old.data.get(key) for key in IMAGES)


def _comparable(new: Manifest, old: Manifest) -> None:
    if new.name != old.name:
        raise RolloutError(f"the bundle is called {new.name}, the one in use {old.name}; devices take only their own")
    if new.input != old.input:
        raise RolloutError(f"the bundle reads {new.input}, the one in use {old.input}")
    if new.created <= old.created:
        raise RolloutError(
            f"the bundle was built {new.created}, not after the one in use ({old.created}); `headwater server "
            "rollback` goes back to an earlier one"
        )
    for task in old.tasks:
        if task not in new.tasks:
            raise RolloutError(f"the bundle lacks the task {task.name}, or has other labels for it")
    if not same_images(new, old):
        now, was = ([manifest.data.get(key) for key in IMAGES] for manifest in (new, old))
        raise RolloutError(
            f"the figures of the two bundles are of different images: {' '.join(map(repr, IMAGES))} are {now} and "
            f"were {was}; measure both on the same"
        )


def _pairs(new: Manifest, old: Manifest) -> list[tuple[Mode, Mode]]:
    now = {(mode.width, mode.gain): mode for mode in new.modes}
    missing = [_name(mode) for mode in old.modes if (mode.width, mode.gain) not in now]
    if missing:
        raise RolloutError(f"the bundle lacks {', '.join(missing)}, which the one in use has")
    return [(now[mode.width, mode.gain], mode) for mode in old.modes]


def _lost(mode: Mode, before: Mode, task: str) -> float:
    if task in before.psnr_db:
        return before.psnr_db[task] - mode.psnr_db.get(task, 0.0)
    if task not in before.accuracy or task not in mode.accuracy:
        raise RolloutError(f"{_name(mode)} was not measured for the task {task}; build the bundle again")
    return 100 * (before.accuracy[task] - mode.accuracy[task])


def _name(mode: Mode) -> str:
    return f"width {mode.width:g}, gain {mode.gain}"
