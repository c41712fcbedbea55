"""What a bundle, the agent's settings and a board say of each frame, as tables that a simulation reads quickly.

Sizes: of a mode the manifest has the mean and the 95th percentile; between them a log-normal distribution is laid.
Accuracy: that of the manifest's table. Of the local exit the bundle knows how many pictures each threshold answers, and
how many points the cascade loses by that; so its answers are worth, on average,

    of those that it is sure of        the server's accuracy less the points lost, over their share
    of the others, when it steps in    the server's accuracy less what it loses beyond these, over theirs

so that all pictures together are right as often as was measured. Made where the bundle is loaded, by the agent's own
code; what is left can be sent to another process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from headwater.compression.errors import SettingsError
from headwater.compression.exits import SCORES
from headwater.device.answering import Slack
from headwater.device.exit import LocalExit
from headwater.device.loaded import controller_maker
from headwater.device.tasks import asked
from headwater.device.whole import measured_accuracy
from headwater.simulations.fleet import profiles
from headwater.simulations.fleet.calibration import Calibration
from headwater.simulations.fleet.drawn import Drawn
from headwater.simulations.fleet.scenario import Times

if TYPE_CHECKING:
    from headwater.compression.bundle import Bundle
    from headwater.compression.manifest import Mode
    from headwater.device.control.controller import Controller
    from headwater.device.settings import DeviceSettings
    from headwater.simulations.fleet.scenario import DeviceClass

Z95 = NormalDist().inv_cdf(0.95)
LEAST_BYTES = 4


@dataclass(frozen=True)
class Exit:
    """The local exit, by mode."""

    sure_above: tuple[float, ...]
    """It is sure of a picture whose ease, normally distributed, is above this."""
    sure_right: tuple[float, ...]
    """Share of right answers among those that it is sure of."""
    unsure_right: tuple[float, ...]
    """Among the others."""


@dataclass(frozen=True)
class Model:
    """Of a class of devices; lists are by mode."""

    make: Callable[[], Controller]
    """A controller that knows nothing yet: the agent's own."""
    widths: tuple[float, ...]
    head_ms: tuple[float, ...]
    mean_bytes: tuple[float, ...]
    cut_bytes: Mapping[tuple[int, int], float]
    """Of a frame cut after some channel groups."""
    sigma: tuple[float, ...]
    """Of the logarithm of a frame's size."""
    below: tuple[int | None, ...]
    """The mode of the next lower gain, where there is one at the same width."""
    right: tuple[float, ...]
    cut_right: Mapping[tuple[int, int], float]
    exit: Exit | None
    whole_right: float
    times: Times
    slow_whole_ms: float | None
    """What the agent takes for the slow end of the whole model's time; None where it may not use it."""
    deadline_ms: float | None
    give_up_ms: float
    """From taking a picture to its exit's stepping in, or its being given up; infinite without a deadline."""
    drawn: Drawn | None = None
    """Measured frames that the times are drawn from, in place of `times`."""


def model_of(bundle: Bundle, devices: DeviceClass) -> Model:
    """Put it together; raises :class:`BundleError` or :class:`SettingsError`, as the agent would."""
    settings, modes = devices.settings, bundle.manifest.modes
    calibration, times = calibration_of(devices), times_of(devices, modes)
    local = LocalExit.of(bundle, settings)
    local = local if local is not None and local.answers else None
    right = _right(bundle, settings)
    whole = _whole(bundle, settings, times)
    deadline_ms = None if settings.deadline_ms is None else float(settings.deadline_ms)
    slack_ms = Slack().ms(deadline_ms) if deadline_ms is not None and local is not None else 0.0
    if calibration is not None and slack_ms and deadline_ms is not None:
        slack_ms = min(calibration.slack_ms, deadline_ms / 5)
    widths = tuple(mode.width for mode in modes)
    return Model(
        make=controller_maker(bundle, settings, None if local is None else local.counts_as, whole),
        widths=widths,
        drawn=None if calibration is None else Drawn(calibration, widths, 1 / devices.arrivals.interval_s),
        head_ms=tuple(_head_ms(times, mode, devices.name) for mode in modes),
        mean_bytes=tuple(mode.mean_bytes for mode in modes),
        cut_bytes={(mode.index, cut.groups): cut.mean_bytes for mode in modes for cut in mode.cuts},
        sigma=tuple(_sigma(mode) for mode in modes),
        below=tuple(_below(modes, mode) for mode in modes),
        right=tuple(right(mode.accuracy) for mode in modes),
        cut_right={(mode.index, cut.groups): right(cut.accuracy) for mode in modes for cut in mode.cuts},
        exit=None if local is None else _exit(bundle, settings, local, [right(mode.accuracy) for mode in modes]),
        whole_right=whole or 0.0,
        times=times,
        slow_whole_ms=(times.whole_ms or 0.0) * (1 + Z95 * times.spread) if whole is not None else None,
        deadline_ms=None if deadline_ms is None else deadline_ms - slack_ms,
        give_up_ms=math.inf if deadline_ms is None else deadline_ms - slack_ms,
    )


def calibration_of(devices: DeviceClass) -> Calibration | None:
    """What their times are drawn from, if anything; raises :class:`SettingsError`."""
    return None if devices.calibration is None else Calibration.load(devices.calibration)


def times_of(devices: DeviceClass, modes: tuple[Mode, ...]) -> Times:
    """Their own, those in the middle of what was measured, or a board's; raises :class:`SettingsError`."""
    if devices.times is not None:
        return devices.times
    if (calibration := calibration_of(devices)) is not None:
        return calibration.middle
    board = profiles.load(devices.profile)
    return Times(
        head_ms={width: figure.mid for width, figure in board.heads(modes).items()},
        prepare_ms=board.prepare_ms.mid,
        exit_ms=board.exit_ms.mid,
        code_ms=board.code_ms.mid,
        whole_ms=None if board.whole_ms is None else board.whole_ms.mid,
    )


def _head_ms(times: Times, mode: Mode, name: str) -> float:
    if mode.width not in times.head_ms:
        known = ", ".join(f"{width:g}" for width in sorted(times.head_ms))
        raise SettingsError(f"devices {name}: head_ms says nothing of width {mode.width:g}; it has {known}")
    return times.head_ms[mode.width]


def _right(bundle: Bundle, settings: DeviceSettings) -> Callable[[Mapping[str, float]], float]:
    """One figure from the accuracy of each task, as the controller takes it."""
    tasks, policy = asked(bundle.manifest, settings.tasks), settings.policy
    return lambda of_tasks: policy.accuracy({task: of_tasks[task] for task in of_tasks if task in tasks})


def _whole(bundle: Bundle, settings: DeviceSettings, times: Times) -> float | None:
    """Accuracy of the whole model where the device may use it."""
    if not settings.whole_model:
        return None
    if times.whole_ms is None:
        raise SettingsError("whole_model is set, but nothing says what the whole model takes: give times whole_ms")
    return measured_accuracy(bundle.manifest, bundle.manifest.tasks[0].name)


def _sigma(mode: Mode) -> float:
    """Of the log-normal distribution with the mode's mean and 95th percentile, as near as one can be."""
    tail = math.log(max(mode.p95_bytes / mode.mean_bytes, 1.0)) if mode.mean_bytes else 0.0
    return Z95 - math.sqrt(max(Z95 * Z95 - 2 * tail, 0.0))


def _below(modes: tuple[Mode, ...], mode: Mode) -> int | None:
    at = mode.index - 1
    return at if at >= 0 and modes[at].width == mode.width else None


def _exit(bundle: Bundle, settings: DeviceSettings, local: LocalExit, right: list[float]) -> Exit:
    tables, score = bundle.exits, SCORES.index(settings.exit_score)
    above, sure, unsure = [], [], []
    for mode in bundle.manifest.modes:
        at = mode.index
        share = 0.0 if settings.max_drop is None else tables.share_within(at, settings.max_drop, settings.exit_score)
        thresholds = tables.threshold[score, tables.width_of[at]].tolist()
        lost = float(tables.drop[score, at, thresholds.index(local.thresholds[at])]) / 100 if share else 0.0
        all_lost = right[at] - local.accuracy[mode.width]
        above.append(_quantile(1 - share))
        sure.append(_of_one(right[at] - lost / share) if share else 0.0)
        unsure.append(_of_one(right[at] - (all_lost - lost) / (1 - share)) if share < 1 else 0.0)
    return Exit(tuple(above), tuple(sure), tuple(unsure))


def _quantile(share: float) -> float:
    if share <= 0:
        return -math.inf
    return NormalDist().inv_cdf(share) if share < 1 else math.inf


def _of_one(share: float) -> float:
    return min(max(share, 0.0), 1.0)
