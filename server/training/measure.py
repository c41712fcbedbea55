"""Measure a bundle mode by mode on held-out images, with the graphs, tables and frames that it ships.

Nothing of the training code takes part: images go through the ONNX heads, the entropy coder, real frames, the decoder
and the tails, as they do in the field, and bytes are the lengths of those frames, header included.

Legend: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort

from headwater.compression.frame import Frame

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from headwater.compression.bundle import Bundle
    from headwater.compression.manifest import Mode

_BATCH = 32


@dataclass(frozen=True)
class ModeRun:
    """All held-out images through one mode."""

    sizes: NDArray[np.int64]
    """Bytes of each frame on a stream, [N]."""
    logits: Mapping[str, NDArray[np.float32]]
    """[N, K] of each task."""


class Bench:
    """A bundle's graphs, loaded once, and the latents of each width, computed once."""

    def __init__(self, bundle: Bundle, images: NDArray[np.uint8]) -> None:
        """Take uint8 images [N, C, H, W]."""
        self.bundle = bundle
        self.images = images
        self.coder = bundle.coder()
        self.frames = bundle.frames()
        self.decoder = session(bundle.read("decoder.onnx"))
        self.tails = {task.name: session(bundle.read(task.tail_file)) for task in bundle.manifest.tasks}
        self._latents: dict[float, NDArray[np.float32]] = {}

    def latents(self, width: float) -> NDArray[np.float32]:
        """Output of the head of a width for every image, float32 [N, C_w, H, W]."""
        if width not in self._latents:
            head = session(self.bundle.read(next(m.head_file for m in self.bundle.manifest.modes if m.width == width)))
            outputs = [head.run(["latent"], {"image": image[np.newaxis]})[0] for image in self.images]
            self._latents[width] = np.concatenate(outputs)
        return self._latents[width]

    def run(self, mode: Mode, groups: int | None = None) -> ModeRun:
        """Code, frame, decode and answer every image at a mode, cut to the first ``groups`` channel groups if given."""
        groups = len(self.bundle.tables.group_ends) if groups is None else groups
        packed = [self._pack(latent, mode, groups) for latent in self.latents(mode.width)]
        answers: dict[str, list[NDArray[np.float32]]] = {name: [] for name in self.tails}
        for start in range(0, len(packed), _BATCH):
            for name, logits in self._answer(packed[start : start + _BATCH]).items():
                answers[name].append(logits)
        sizes = np.array([len(data) for data in packed], dtype=np.int64)
        return ModeRun(sizes, {name: np.concatenate(parts) for name, parts in answers.items()})

    def _pack(self, latent: NDArray[np.float32], mode: Mode, groups: int) -> bytes:
        symbols = quantise(latent[: mode.channels], self.bundle.tables.gain[mode.index, : mode.channels])
        encoded = self.coder.encode(symbols, mode.index)
        return self.frames.pack(Frame(mode.index, groups, encoded.payload[: encoded.group_ends[groups - 1]]))

    def _answer(self, packed: list[bytes]) -> dict[str, NDArray[np.float32]]:
        frames = [self.frames.unpack(data) for data in packed]
        modes = [frame.mode for frame in frames]
        latents, errors = self.coder.decode_batch([f.payload for f in frames], modes, [f.groups for f in frames])
        for error in errors:
            if error is not None:
                raise error
        (features,) = self.decoder.run(["features"], {"latent": latents, "mode": np.array(modes, dtype=np.int64)})
        return {name: tail.run(["logits"], {"features": features})[0] for name, tail in self.tails.items()}


def quantise(latent: NDArray[np.float32], gain: NDArray[np.float32]) -> NDArray[np.int16]:
    """Symbols int16 [C, H, W] of a latent [C, H, W] at gains [C]."""
    scaled = np.rint(latent * gain[:, np.newaxis, np.newaxis])
    limits = np.iinfo(np.int16)
    return np.clip(scaled, limits.min, limits.max).astype(np.int16)


def local_logits(bundle: Bundle, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The unsplit model's answers to its first task, [N, K]."""
    local = session(bundle.read("local.onnx"))
    return np.concatenate([local.run(["logits"], {"image": image[np.newaxis]})[0] for image in images])


def session(graph: bytes) -> ort.InferenceSession:
    """A CPU session for measuring answers (not time)."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
