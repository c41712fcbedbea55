"""The head: a picture in, the bytes of a frame out.

    picture ──InputSpec──> uint8 [C_in, H_in, W_in] ──onnxruntime──> latent ──gain, rint──> symbols ──coder──> frame
            prepare_ms                             head_ms             │                   code_ms
                                                                       └──> local exit, exit_ms

That is two steps: :meth:`FrameMaker.look` goes as far as the latent and what the exit says of it, which may be all that
is needed; :meth:`FrameMaker.code` makes a frame of it, of any gain of that width.

Every width has a session of its own, and all of them stay loaded, so that the mode may change with every frame for the
price of looking one up. No thread spins while the device waits for its next picture; a session keeps the few megabytes
that its run takes, since to fetch them from the system for every picture costs a tenth of the time.

Letters: C_w channels of a mode's latent, H W the latent's sides.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from headwater.compression.frame import Frame
from headwater.compression.inference import quantise, session
from headwater.compression.manifest import head_file
from headwater.compression.parts import Part, split

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from headwater.compression.bundle import Bundle
    from headwater.device.exit import Judged, LocalExit


class Head:
    """The heads of all widths of a bundle, loaded and warm. Keeps no reference to the bundle."""

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        """Load every width; raises :class:`BundleError`."""
        manifest = bundle.manifest
        self.modes = manifest.modes
        self.input = manifest.input
        self._sessions = {width: session(bundle.read(head_file(width)), threads) for width in manifest.widths}
        self._gains = [bundle.tables.gain[mode.index, : mode.channels] for mode in self.modes]
        blank = np.zeros(self.input.shape, np.uint8)
        for width in manifest.widths:
            self.latent(blank, width)

    def latent(self, image: NDArray[np.uint8], width: float) -> NDArray[np.float32]:
        """Run the head of a width on an image [C_in, H_in, W_in]; float32 [C_w, H, W]."""
        (latent,) = self._sessions[width].run(("latent",), {"image": image[np.newaxis]})
        array: NDArray[np.float32] = latent[0]
        return array

    def quantise(self, latent: NDArray[np.float32], mode: int) -> NDArray[np.int16]:
        """Scale a latent by the mode's gain and round it; int16 [C_w, H, W]."""
        return quantise(latent, self._gains[mode])


@dataclass(frozen=True, eq=False)
class Seen:
    """What the head made of a picture, before it is coded."""

    width: float
    """Of the head that ran."""
    latent: NDArray[np.float32]
    """[C_w, H, W]."""
    prepare_ms: float
    """Converting and scaling the decoded picture."""
    head_ms: float
    """The network."""
    judged: Judged | None = None
    """What the local exit says, where it may answer."""
    exit_ms: float = 0.0
    """What the exit took, if it ran."""
    opinion: int | None = None
    """What it says to the server."""


@dataclass(frozen=True, eq=False)
class Coded:
    """The bytes of a frame, and what they took to make."""

    seen: Seen
    mode: int
    """Index into the manifest's modes: what was asked for, or one of a lower gain."""
    frame: Frame
    data: bytes
    """The frame in the form that a stream carries."""
    code_ms: float
    """Quantising, entropy coding and framing, of all gains that were tried."""
    parts: tuple[Part, ...] = ()
    """The same frame in parts, where it is long enough for that."""


class FrameMaker:
    """Makes frames of pictures. One thread at a time; the heavy parts let other threads run."""

    def __init__(
        self,
        bundle: Bundle,
        threads: int = 1,
        local_exit: LocalExit | None = None,
        parts_above: int | None = None,
    ) -> None:
        """Load the heads and tables; the bundle itself, with the server's graphs in it, can then be freed.

        Args:
            bundle: the model.
            threads: of the head's inference.
            local_exit: judges each latent, or has an opinion on it at least.
            parts_above: give frames of more bytes than this in parts too; None for none.
        """
        self.head = Head(bundle, threads)
        self.local_exit = local_exit if local_exit is not None and local_exit.answers else None
        """The exit, where it may answer."""
        self._exit = local_exit
        self.groups = len(bundle.tables.group_ends)
        """G, the channel groups of a whole frame."""
        self._coder = bundle.coder()
        self._frames = bundle.frames()
        self._parts_above = math.inf if parts_above is None else parts_above

    def make(self, picture: Image.Image, mode: int, groups: int | None = None) -> Coded:
        """Look at a picture and code it; see :meth:`look` and :meth:`code`."""
        return self.code(self.look(picture, mode), mode, groups)

    def look(self, picture: Image.Image, mode: int) -> Seen:
        """Run the head on a picture of any size and form, and the local exit on what it gives.

        ``mode`` is an index into the manifest's modes: its width is the head's, and the exit is sure by its threshold.
        """
        begin = time.perf_counter()
        image = self.head.input.apply(picture)
        prepared = time.perf_counter()
        width = self.head.modes[mode].width
        latent = self.head.latent(image, width)
        run = time.perf_counter()
        seen = Seen(width, latent, (prepared - begin) * 1e3, (run - prepared) * 1e3)
        if self._exit is None:
            return seen
        judged = self._exit.judge(latent, mode)
        exit_ms, answer = (time.perf_counter() - run) * 1e3, judged if self.local_exit is not None else None
        return replace(seen, judged=answer, exit_ms=exit_ms, opinion=judged.opinion)

    def code(self, seen: Seen, mode: int, groups: int | None = None, most_bytes: int | None = None) -> Coded:
        """Make a frame of what the head saw.

        Args:
            seen: of the mode's width.
            mode: index into the manifest's modes.
            groups: channel groups to send, 1 to G; None for all.
            most_bytes: code a longer frame again at the width's next lower gain, until it fits or there is none lower;
                None for any length.
        """
        begin = time.perf_counter()
        modes = self.head.modes  # sorted by width, then by gain
        assert modes[mode].width == seen.width, f"a head of width {seen.width} does not give {modes[mode]}"
        frame, data, ends = self._pack(seen, mode, groups)
        while most_bytes is not None and len(data) > most_bytes and mode and modes[mode - 1].width == seen.width:
            mode -= 1
            frame, data, ends = self._pack(seen, mode, groups)
        parts = tuple(split(self._frames, frame, ends)) if len(data) > self._parts_above else ()
        code_ms = (time.perf_counter() - begin) * 1e3
        return Coded(seen, mode, frame, data, code_ms, parts if len(parts) > 1 else ())

    def self_contained(self, coded: Coded) -> bytes:
        """The frame in the form that names its bundle, for files and single calls."""
        return self._frames.pack_file(coded.frame)

    def _pack(self, seen: Seen, mode: int, groups: int | None) -> tuple[Frame, bytes, tuple[int, ...]]:
        """The frame of a mode, its bytes, and where each group ends in the uncut payload."""
        encoded = self._coder.encode(self.head.quantise(seen.latent, mode), mode)
        groups = self.groups if groups is None else groups
        frame = Frame(mode, groups, encoded.payload[: encoded.group_ends[groups - 1]], seen.opinion)
        return frame, self._frames.pack(frame), encoded.group_ends
