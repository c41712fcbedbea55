"""The server's half of a bundle's network on ONNX Runtime: the decoder, then the tail of each task that was asked for.

Sessions do not spin: a thread that waits for work sleeps, so that an idle server costs nothing and a busy one leaves
its cores to the next batch. With one thread (the default) a batch runs in the thread that calls :meth:`Tails.run`,
and several batches run side by side.

What a device says of a picture itself, in its frame's opinion (compression/exits.py), is joined with the logits of the
task that it is on.

Tasks that give an image run only where they are asked for by name: a PNG is hundreds of times the bytes of some scores.

Legend: B batch, C H W latent, K classes of a task, T tasks, C_in H_in W_in the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from headwater.compression.errors import BundleError
from headwater.compression.exits import joined
from headwater.compression.inference import session

if TYPE_CHECKING:
    from headwater.compression.bundle import Bundle
    from headwater.compression.manifest import Task

Output: TypeAlias = list[float] | NDArray[np.uint8]
"""Of one task for one frame: class probabilities [K], or an image [C_in, H_in, W_in]."""

ORT_ERRORS: tuple[type[Exception], ...] = tuple(
    getattr(ort.capi.onnxruntime_pybind11_state, name)
    for name in ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "RuntimeException")
)
"""What onnxruntime raises for a graph that it cannot run."""


class Tails:
    """Decoder and tails of one bundle; may be run from many threads at a time.

    Raises:
        BundleError: if a graph does not load, or its inputs and outputs are not what the manifest says.
    """

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        self.tasks = bundle.manifest.tasks
        self.default_mask = sum(1 << t for t, task in enumerate(self.tasks) if task.kind == "classify")
        """What a frame gets that asks for nothing by name; bit t is the task at position t."""
        self._image = bundle.manifest.input.shape
        latent = bundle.manifest.latent
        self._latent = (latent.channels, latent.height, latent.width)
        said = bundle.manifest.exit
        self._opinion_on = "" if said is None else said.task
        self._opinions = None if said is None else bundle.exits.opinions
        self._decoder = _load(bundle, "decoder.onnx", threads, {"latent", "mode"}, "features")
        self._tails = [_load(bundle, task.tail_file, threads, {"features"}, task.output) for task in self.tasks]

    def warm_up(self, *batches: int) -> None:
        """Run zeros in batches of these sizes, so that no frame waits for allocations.

        Raises:
            BundleError: if a graph fails, or gives scores of another shape than the task has labels.
        """
        every = (1 << len(self.tasks)) - 1
        for batch in batches:
            try:
                self.run(np.zeros((batch, *self._latent), np.float32), np.zeros(batch, np.int64), [every] * batch)
            except ORT_ERRORS as error:
                raise BundleError(f"the graphs of the bundle fail on a batch of {batch}: {error}") from error

    def run(
        self,
        latents: NDArray[np.float32],
        modes: NDArray[np.int64],
        masks: Sequence[int],
        opinions: Sequence[int | None] = (),
    ) -> list[dict[str, Output] | None]:
        """Answer a batch.

        Args:
            latents: dequantised, float32 [B, C, H, W].
            modes: [B], the mode that coded each.
            masks: [B], bit t set for the task at position t; 0 asks for all that classify.
            opinions: [B], those of the frames, None where one has none; empty where none has one.

        Returns:
            For each frame the output of every task that it asked for, or None where the network gave something that
            is not finite.

        Raises:
            One of :data:`ORT_ERRORS`.
        """
        (features,) = self._decoder.run(["features"], {"latent": latents, "mode": modes})
        masks = [mask or self.default_mask for mask in masks]
        answers: list[dict[str, Output] | None] = [{} for _ in masks]
        for position, (task, tail) in enumerate(zip(self.tasks, self._tails, strict=True)):
            rows = [row for row, mask in enumerate(masks) if mask >> position & 1]
            if not rows:
                continue
            wanted = features if len(rows) == len(masks) else features[rows]
            (output,) = tail.run([task.output], {"features": wanted})
            if task.name == self._opinion_on and any(opinion is not None for opinion in opinions):
                output = self._joined(output, [opinions[row] for row in rows])
            finite, outputs = self._finish(task, output, len(rows))
            for row, sound, values in zip(rows, finite, outputs, strict=True):
                answer = answers[row]
                if answer is not None:
                    answer[task.name] = values
                if not sound:
                    answers[row] = None
        return answers

    def _joined(self, logits: NDArray[np.float32], opinions: Sequence[int | None]) -> NDArray[np.float32]:
        """Logits [B, K] with those of the opinions [B]."""
        assert self._opinions is not None
        rows = [row for row, opinion in enumerate(opinions) if opinion is not None]
        logits[rows] = joined(logits[rows], self._opinions[[opinion for opinion in opinions if opinion is not None]])
        return logits

    def _finish(self, task: Task, output: NDArray[np.float32], rows: int) -> tuple[list[bool], Sequence[Output]]:
        """Whether each row is finite, and what it says."""
        if task.kind == "image":
            _check_shape(task, output, (rows, *self._image), "the bundle's input wants")
            return _pixels(output)
        _check_shape(task, output, (rows, len(task.labels)), "its labels want")
        return _softmax(output)


def _check_shape(task: Task, output: NDArray[np.float32], wanted: tuple[int, ...], why: str) -> None:
    if output.shape != wanted:
        raise BundleError(f"the tail of {task.name} gives {task.output} {list(output.shape)}; {why} {list(wanted)}")


def _load(bundle: Bundle, name: str, threads: int, inputs: set[str], output: str) -> ort.InferenceSession:
    loaded = session(bundle.read(name), threads, name=f"{name} of the bundle {bundle.manifest.name}", batches=True)
    found = {node.name for node in loaded.get_inputs()}, [node.name for node in loaded.get_outputs()]
    if found != (inputs, [output]):
        raise BundleError(
            f"{name} of the bundle {bundle.manifest.name} takes {sorted(found[0])} and gives {found[1]}; "
            f"want {sorted(inputs)} and {[output]}"
        )
    return loaded


def _softmax(logits: NDArray[np.float32]) -> tuple[list[bool], list[list[float]]]:
    """Probabilities of each row [B, K], and whether the row's logits were all finite."""
    finite = np.all(np.isfinite(logits), axis=1)
    if not finite.all():
        logits = np.where(finite[:, np.newaxis], logits, 0)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return finite.tolist(), (weights / weights.sum(axis=1, keepdims=True)).tolist()


def _pixels(images: NDArray[np.float32]) -> tuple[list[bool], list[NDArray[np.uint8]]]:
    """Whole pixels of each row [B, C_in, H_in, W_in], and whether the row's values were all finite."""
    finite = np.all(np.isfinite(images), axis=(1, 2, 3))
    whole = np.rint(np.clip(np.nan_to_num(images), 0, 255)).astype(np.uint8)
    return finite.tolist(), list(whole)
