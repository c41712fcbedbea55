"""The head: a picture in, the bytes of a frame out.

    picture ──InputSpec──> uint8 [C_in, H_in, W_in] ──onnxruntime──> latent ──gain, rint──> symbols ──coder──> frame
            prepare_ms                             head_ms                                 code_ms

Every width has a session of its own, and all of them stay loaded, so that the mode may change with every frame for the
price of looking one up. No thread spins while the device waits for its next picture; a session keeps the few megabytes
that its run takes, since to fetch them from the system for every picture costs a tenth of the time.

Letters: C_w channels of a mode's latent, H W the latent's sides.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort

from headwater.compression.errors import BundleError
from headwater.compression.frame import Frame
from headwater.compression.manifest import head_file
from headwater.compression.parts import Part, split

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from PIL import Image

    from headwater.compression.bundle import Bundle
    from headwater.device.exit import Judged, LocalExit
    from headwater.device.record import Result

_LEAST, _MOST = np.iinfo(np.int16).min, np.iinfo(np.int16).max


def session(graph: bytes, threads: int = 1) -> ort.InferenceSession:
    """Load a graph for a small device; raises :class:`BundleError` when onnxruntime refuses it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; the warnings are about the machine, not about the graph
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    # onnxruntime's exceptions derive from Exception only, a class for each of its status codes.
    except Exception as error:
        raise BundleError(f"onnxruntime cannot load a graph of the bundle: {error}") from error


class Head:
    """The heads of all widths of a bundle, loaded and warm. Keeps no reference to the bundle."""

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        """Load every width; raises :class:`BundleError`."""
        manifest = bundle.manifest
        self.modes = manifest.modes
        self.input = manifest.input
        self._sessions = {width: session(bundle.read(head_file(width)), threads) for width in manifest.widths}
        self._gains = [bundle.tables.gain[mode.index, : mode.channels, np.newaxis, np.newaxis] for mode in self.modes]
        blank = np.zeros(self.input.shape, np.uint8)
        for width in manifest.widths:
            self.latent(blank, width)

    def latent(self, image: NDArray[np.uint8], width: float) -> NDArray[np.float32]:
        """Run the head of a width on an image [C_in, H_in, W_in]; float32 [C_w, H, W]."""
        (latent,) = self._sessions[width].run(("latent",), {"image": image[np.newaxis]})
        array: NDArray[np.float32] = latent[0]
        return array

    def quantise(self, latent: NDArray[np.float32], mode: int) -> NDArray[np.int16]:
        """Scale a latent by the mode's gain and round it, in place; int16 [C_w, H, W]."""
        latent *= self._gains[mode]
        np.rint(latent, out=latent)
        return np.clip(latent, _LEAST, _MOST, out=latent).astype(np.int16)


@dataclass(frozen=True)
class Coded:
    """The bytes of a frame, and what they took to make."""

    data: bytes
    groups: int
    """Channel groups in it."""
    prepare_ms: float
    """Converting and scaling the decoded picture."""
    head_ms: float
    """The network."""
    code_ms: float
    """Quantising, entropy coding and framing."""
    judged: Judged | None = None
    """What the local exit says, where there is one; if it has an answer, ``data`` is empty."""
    parts: tuple[Part, ...] = ()
    """The same frame in parts, where it is long enough for that."""

    @property
    def answers(self) -> Mapping[str, Result]:
        """The local exit's answer by task; empty for a frame that has to be sent."""
        return self.judged.results if self.judged is not None else {}


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
            local_exit: answers pictures that need not be sent.
            parts_above: give frames of more bytes than this in parts too; None for none.
        """
        self.head = Head(bundle, threads)
        self.local_exit = local_exit
        self.groups = len(bundle.tables.group_ends)
        """G, the channel groups of a whole frame."""
        self._coder = bundle.coder()
        self._frames = bundle.frames()
        self._parts_above = math.inf if parts_above is None else parts_above

    def make(self, picture: Image.Image, mode: int, groups: int | None = None, *, file: bool = False) -> Coded:
        """Code a picture, unless the local exit can answer it.

        Args:
            picture: of any size and mode.
            mode: index into the manifest's modes.
            groups: channel groups to send, 1 to G; None for all.
            file: give the self-contained form, which names its bundle.
        """
        begin = time.perf_counter()
        image = self.head.input.apply(picture)
        prepared = time.perf_counter()
        latent = self.head.latent(image, self.head.modes[mode].width)
        run = time.perf_counter()
        prepare_ms, head_ms = (prepared - begin) * 1e3, (run - prepared) * 1e3
        judged = None if self.local_exit is None else self.local_exit.judge(latent, mode)
        if judged is not None and judged.results:
            return Coded(b"", 0, prepare_ms, head_ms, 0.0, judged)
        run = time.perf_counter()
        encoded = self._coder.encode(self.head.quantise(latent, mode), mode)
        groups = self.groups if groups is None else groups
        frame = Frame(mode, groups, encoded.payload[: encoded.group_ends[groups - 1]])
        data = self._frames.pack_file(frame) if file else self._frames.pack(frame)
        parts = split(self._frames, frame, encoded.group_ends) if len(data) > self._parts_above else []
        end = time.perf_counter()
        return Coded(
            data, groups, prepare_ms, head_ms, (end - run) * 1e3, judged, tuple(parts) if len(parts) > 1 else ()
        )
