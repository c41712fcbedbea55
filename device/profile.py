"""How long the head takes on this machine, width by width, beside the whole model where the bundle has it.

Widths take turns in each round, so that a clock that changes or a neighbour that wakes falls on all of them alike. In a
turn each runs a few times and the first run is not counted: it pays for the caches that the one before it filled, which
a device that stays in its mode does not.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from headwater.compression.inference import session
from headwater.device.head import Coded, FrameMaker
from headwater.device.whole import WHOLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from headwater.compression.bundle import Bundle

WARM_UP = 5
TURN = 4
"""Runs of a width in its turn; the first is not counted."""


@dataclass(frozen=True)
class Profile:
    """Times of one width, ms; medians but for `head_p95_ms`."""

    width: float
    head_ms: float
    head_p95_ms: float
    prepare_ms: float
    code_ms: float
    """At the width's finest gain."""
    macs: int
    parameters: int


def profile(bundle: Bundle, *, threads: int = 1, rounds: int = 200) -> tuple[list[Profile], float | None]:
    """Measure every width; also the median time of the whole model in ms, None where the bundle has none."""
    maker = FrameMaker(bundle, threads)
    finest = {mode.width: mode for mode in bundle.manifest.modes}  # sorted by gain, so the last one stays
    pixels = np.random.default_rng(0).integers(0, 256, bundle.manifest.input.shape, dtype=np.uint8)
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    whole = whole_model(bundle, pixels, threads)
    coded: dict[float, list[Coded]] = {width: [] for width in finest}
    whole_ms: list[float] = []
    for _ in range(-(-rounds // (TURN - 1)) + WARM_UP):
        for width, mode in finest.items():
            coded[width] += [maker.make(picture, mode.index) for _ in range(TURN)][1:]
        if whole is not None:
            whole_ms += [timed_ms(whole) for _ in range(TURN)][1:]
    rows = [
        Profile(
            width,
            median(one.seen.head_ms for one in kept),
            float(np.quantile([one.seen.head_ms for one in kept], 0.95)),
            median(one.seen.prepare_ms for one in kept),
            median(one.code_ms for one in kept),
            finest[width].head_macs,
            finest[width].head_parameters,
        )
        for width, all_coded in coded.items()
        if (kept := all_coded[-rounds:])
    ]
    return rows, median(whole_ms[-rounds:]) if whole_ms else None


def timed_ms(run: Callable[[], object]) -> float:
    """How long a call takes, ms."""
    begin = time.perf_counter()
    run()
    return (time.perf_counter() - begin) * 1e3


def whole_model(bundle: Bundle, pixels: NDArray[np.uint8], threads: int) -> Callable[[], object] | None:
    """The whole model on an image [C_in, H_in, W_in]; None where the bundle has none."""
    if WHOLE not in bundle:
        return None
    model = session(bundle.read(WHOLE), threads)
    return lambda: model.run(None, {"image": pixels[np.newaxis]})
