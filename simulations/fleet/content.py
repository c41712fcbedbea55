"""What known pictures become: the bytes of their frames in each mode, and how sure the local exit is of each.

For a replay: the twin's frames are then of the very pictures that the real devices had, so that their bytes differ in
nothing but what was decided. Made with the graphs, tables and exit that the bundle ships, as a device would.

Letters: N pictures, M modes, V widths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwater.compression.datasets import read_image
from headwater.device.exit import LocalExit
from headwater.device.head import FrameMaker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from headwater.compression.bundle import Bundle
    from headwater.device.settings import DeviceSettings


@dataclass(frozen=True, eq=False)
class Content:
    """Of pictures in a fixed order."""

    sizes: NDArray[np.int64]
    """Bytes of each picture's frame in each mode, header included, [N, M]."""
    confidence: NDArray[np.float64]
    """The local exit's score of its own answer at each width, [N, V]; NaN where there is no exit."""

    @classmethod
    def of(cls, bundle: Bundle, settings: DeviceSettings, pictures: Sequence[Path]) -> Content:
        """Code every picture in every mode; raises :class:`BundleError` or :class:`DataError`."""
        maker = FrameMaker(bundle, local_exit=LocalExit.of(bundle, settings))
        sizes = np.zeros((len(pictures), len(bundle.manifest.modes)), np.int64)
        confidence = np.full((len(pictures), len(bundle.manifest.widths)), np.nan)
        for number, path in enumerate(pictures):
            _code(maker, path, sizes[number], confidence[number])
        return cls(sizes, confidence)


def _code(maker: FrameMaker, path: Path, sizes: NDArray[np.int64], confidence: NDArray[np.float64]) -> None:
    picture, modes = read_image(path), maker.head.modes
    for at, width in enumerate(sorted({mode.width for mode in modes})):
        own = [mode.index for mode in modes if mode.width == width]
        seen = maker.look(picture, own[0])
        if seen.judged is not None:
            confidence[at] = seen.judged.confidence
        for mode in own:
            sizes[mode] = len(maker.code(seen, mode).data)
