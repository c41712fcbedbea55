"""How long the head takes on this machine, width by width, beside the whole model where the bundle has it.

Widths take turns in each round, so that a clock that changes or a neighbour that wakes falls on all of them alike. In a
turn each runs a few times and the first runs are not counted: they pay for the caches that the one before it filled,
which a device that stays in its mode does not. The whole model, too, gets a picture that was prepared just before.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, TypeVar

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
TURN, UNCOUNTED = 8, 4
"""Runs of a width in its turn, and how many of them, its first, are not counted: with 2 MB of cache a core it takes
four until the times are what they stay at."""
T = TypeVar("T")


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
    whole = whole_model(bundle, threads)
    coded: dict[float, list[Coded]] = {width: [] for width in finest}
    whole_ms: list[float] = []
    for _ in range(-(-rounds // (TURN - UNCOUNTED)) + WARM_UP):
        for width, mode in finest.items():
            coded[width] += turn(partial(maker.make, picture, mode.index))
        if whole is not None:
            whole_ms += turn(lambda: timed_ms(whole, maker.head.input.apply(picture)))
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


def turn(run: Callable[[], T]) -> list[T]:
    """What the counted runs of a turn give."""
    return [run() for _ in range(TURN)][UNCOUNTED:]


def timed_ms(model: Callable[[NDArray[np.uint8]], object], image: NDArray[np.uint8]) -> float:
    """How long a model takes for an image, ms."""
    begin = time.perf_counter()
    model(image)
    return (time.perf_counter() - begin) * 1e3


def whole_model(bundle: Bundle, threads: int) -> Callable[[NDArray[np.uint8]], object] | None:
    """The whole model, of an image [C_in, H_in, W_in]; None where the bundle has none."""
    if WHOLE not in bundle:
        return None
    model = session(bundle.read(WHOLE), threads)
    return lambda image: model.run(None, {"image": image[np.newaxis]})
