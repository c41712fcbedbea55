"""What known pictures become: the bytes of their frames in each mode, and how sure the local exit is of each.

For a replay: the twin's frames are then of the very pictures that the real devices had, so that their bytes differ in
nothing but what was decided. Made with the graphs, tables and exit that the bundle ships, as a device would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.compression.datasets import read_image
from headwater.device.exit import LocalExit
from headwater.device.head import FrameMaker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from headwater.compression.bundle import Bundle
    from headwater.device.head import Seen
    from headwater.device.settings import DeviceSettings


class Content:
    """Of pictures in a fixed order; each is coded when it is first asked for, and remembered."""

    def __init__(self, bundle: Bundle, settings: DeviceSettings, pictures: Sequence[Path]) -> None:
        """Load heads and exit as a device of these settings; raises :class:`BundleError`."""
        self._maker = FrameMaker(bundle, local_exit=LocalExit.of(bundle, settings))
        self._pictures = pictures
        self._seen: dict[tuple[int, float], Seen] = {}
        self._sizes: dict[tuple[int, int, int | None], int] = {}

    def size(self, picture: int, mode: int, groups: int | None = None) -> int:
        """Bytes of a picture's frame, header included, cut after so many channel groups; None for all of it.

        Raises :class:`DataError` for a picture that cannot be read.
        """
        key = picture, mode, groups
        if key not in self._sizes:
            self._sizes[key] = len(self._maker.code(self._look(picture, mode), mode, groups).data)
        return self._sizes[key]

    def confidence(self, picture: int, mode: int) -> float | None:
        """The local exit's score of its own answer at the mode's width; None where it may not answer."""
        judged = self._look(picture, mode).judged
        return None if judged is None else judged.confidence

    def _look(self, picture: int, mode: int) -> Seen:
        key = picture, self._maker.head.modes[mode].width
        if key not in self._seen:
            self._seen[key] = self._maker.look(read_image(self._pictures[picture]), mode)
        return self._seen[key]
