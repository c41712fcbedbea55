"""Measure a bundle mode by mode on held-out images, with the graphs, tables and frames that it ships.

Nothing of the training code takes part: images go through the ONNX heads, the entropy coder, real frames, the decoder
and the tails, as they do in the field, and bytes are the lengths of those frames, header included.

Legend: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np

from headwater.compression.exits import joined
from headwater.compression.frame import Frame
from headwater.compression.inference import quantise, session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from headwater.compression.bundle import Bundle
    from headwater.compression.manifest import Mode, Task

_BATCH = 32
SHOWN = 4
LEAST_ERROR = 1e-2
"""Squared error from which on a picture counts as the same: 68 dB."""
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class ModeRun:
    """All held-out images through one mode."""

    sizes: NDArray[np.int64]
    """Bytes of each frame on a stream, [N]."""
    logits: Mapping[str, NDArray[np.float32]]
    """[N, K] of each task with labels."""
    psnr_db: Mapping[str, NDArray[np.float64]]
    """Peak signal-to-noise ratio of each image [N], of each task that gives one."""
    pictures: Mapping[str, NDArray[np.uint8]]
    """The first :data:`SHOWN` images that such a task gives, [n, C_in, H_in, W_in]; all would not fit into memory."""


class Bench:
    """A bundle's graphs, loaded once, and the latents of each width, computed once."""

    def __init__(self, bundle: Bundle, images: NDArray[np.uint8], tasks: Sequence[Task] = ()) -> None:
        """Take uint8 images [N, C, H, W] and the tasks to run, all of the bundle if none is given."""
        self.bundle = bundle
        self.images = images
        self.latent = bundle.manifest.latent
        self.coder = bundle.coder()
        self.frames = bundle.frames()
        self.decoder = session(bundle.read("decoder.onnx"), threads=0, batches=True)
        self.tasks = tuple(tasks) or bundle.manifest.tasks
        self.tails = {task.name: session(bundle.read(task.tail_file), threads=0, batches=True) for task in self.tasks}
        self._latents: dict[float, NDArray[np.float32]] = {}
        self._opinions: dict[float, list[int]] = {}
        self._known: dict[tuple[str, int, bytes], NDArray[np.float32]] = {}
        """Logits [K] of a task, by mode and digest of the latent: a frame's last groups often change nothing."""

    def of(self, bundle: Bundle) -> Bench:
        """A bench of a bundle with the same heads, with the latents that were computed already."""
        other = Bench(bundle, self.images)
        other._latents = self._latents
        return other

    def only(self, tasks: Sequence[Task]) -> Self:
        """The same bench, with what it has loaded and computed, for these of its tasks only."""
        fewer = copy.copy(self)
        fewer.tasks = tuple(tasks)
        return fewer

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
        opinions: Sequence[int | None] = self.opinions(mode.width) or [None] * len(self.images)
        latents = self.latents(mode.width)
        packed = [self._pack(*each, mode, groups) for each in zip(latents, opinions, strict=True)]
        logits: dict[str, list[NDArray[np.float32]]] = {task.name: [] for task in self.tasks if task.labels}
        psnr_db: dict[str, list[NDArray[np.float64]]] = {task.name: [] for task in self.tasks if not task.labels}
        pictures: dict[str, NDArray[np.uint8]] = {}
        for start in range(0, len(packed), _BATCH):
            for name, output in self._answer(packed[start : start + _BATCH]).items():
                if name in logits:
                    logits[name].append(output)
                else:
                    whole = np.rint(output).clip(0, 255).astype(np.uint8)  # as a server rounds it
                    psnr_db[name].append(psnr(whole, self.images[start : start + _BATCH]))
                    pictures.setdefault(name, whole[:SHOWN])
        sizes = np.array([len(data) for data in packed], dtype=np.int64)
        return ModeRun(sizes, _joined(logits), _joined(psnr_db), pictures)

    def opinions(self, width: float) -> list[int]:
        """What the device says of every image at a width, [N]; empty where the bundle knows no opinions."""
        bundle = self.bundle
        if width not in self._opinions and bundle.manifest.exit is not None and len(bundle.exits.opinions):
            exit_, index, shape = session(bundle.read("exit.onnx")), bundle.manifest.widths.index(width), self.latent
            full, said = np.zeros((1, shape.channels, shape.height, shape.width), np.float32), []
            for latent in self.latents(width):
                full[0, : len(latent)] = latent
                (logits,) = exit_.run(["logits"], {"latent": full, "width": np.array([index], np.int64)})
                said.append(bundle.exits.opinion(logits[0], index) or 0)
            self._opinions[width] = said
        return self._opinions.get(width, [])

    def _pack(self, latent: NDArray[np.float32], opinion: int | None, mode: Mode, groups: int) -> bytes:
        symbols = quantise(latent[: mode.channels], self.bundle.tables.gain[mode.index, : mode.channels])
        encoded = self.coder.encode(symbols, mode.index)
        return self.frames.pack(Frame(mode.index, groups, encoded.payload[: encoded.group_ends[groups - 1]], opinion))

    def _answer(self, packed: list[bytes]) -> dict[str, NDArray[np.float32]]:
        frames = [self.frames.unpack(data) for data in packed]
        modes = [frame.mode for frame in frames]
        latents, errors = self.coder.decode_batch([f.payload for f in frames], modes, [f.groups for f in frames])
        for error in errors:
            if error is not None:
                raise error
        outputs = self._outputs(latents, modes)
        said, exit_ = [frame.opinion for frame in frames if frame.opinion is not None], self.bundle.manifest.exit
        if said and exit_ is not None and exit_.task in outputs:
            outputs[exit_.task] = joined(outputs[exit_.task], self.bundle.exits.opinions[said])
        return outputs

    def _outputs(self, latents: NDArray[np.float32], modes: list[int]) -> dict[str, NDArray[np.float32]]:
        """Outputs of every task to latents [B, C, H, W], run for those only of which they are not known."""
        if not all(task.labels for task in self.tasks):
            return self._run(latents, modes)
        digests = [sha256(latent.tobytes()).digest() for latent in latents]
        keys = {task.name: [(task.name, *each) for each in zip(modes, digests, strict=True)] for task in self.tasks}
        unknown = [row for row in range(len(modes)) if any(own[row] not in self._known for own in keys.values())]
        if unknown:
            for name, outputs in self._run(latents[unknown], [modes[row] for row in unknown]).items():
                self._known.update(zip([keys[name][row] for row in unknown], outputs, strict=True))
        return {name: np.stack([self._known[key] for key in own]) for name, own in keys.items()}

    def _run(self, latents: NDArray[np.float32], modes: list[int]) -> dict[str, NDArray[np.float32]]:
        (features,) = self.decoder.run(["features"], {"latent": latents, "mode": np.array(modes, dtype=np.int64)})
        return {task.name: self.tails[task.name].run([task.output], {"features": features})[0] for task in self.tasks}


def psnr(pictures: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio of each picture [N, C, H, W] in dB: [N]."""
    errors = pictures.astype(np.float64) - wanted
    return np.asarray(10 * np.log10(255**2 / np.maximum(np.square(errors).mean(axis=(1, 2, 3)), LEAST_ERROR)))


def _joined(parts: Mapping[str, list[NDArray[T]]]) -> dict[str, NDArray[T]]:
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def local_logits(bundle: Bundle, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The unsplit model's answers to its first task, [N, K]."""
    local = session(bundle.read("local.onnx"), threads=0)
    return np.concatenate([local.run(["logits"], {"image": image[np.newaxis]})[0] for image in images])
