"""What an image codec would have cost: JPEG and WebP at a grid of sizes and qualities, scored by the unsplit network.

Each picture is made small, coded, decoded, brought to the network's size and answered by the bundle's ``local.onnx``:
the network as it was before the split, which never saw an image codec in training. A network tuned on a codec's
pictures does better than this one at the same bytes, so the figures say what a codec costs with the network at hand.

Bytes are counted in the codecs' favour: what is the same in every picture could be agreed once, as ours is, and is not
counted: in JPEG the quantisation and Huffman tables (the abbreviated format of the standard, ITU-T T.81, B.5), in WebP
the RIFF container, in AVIF all boxes and the AV1 sequence header. What a plain file would have (optimised Huffman
tables for JPEG) is kept beside it. AVIF is not in the grid: it takes ten times as long to code.

Letters: N pictures.
"""

from __future__ import annotations

import io
import math
import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from headwater.compression.errors import BundleError
from headwater.compression.image import to_eight_bits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnxruntime as ort
    from numpy.typing import NDArray

    from headwater.compression.bundle import Bundle
    from headwater.compression.image import InputSpec

Name = Literal["JPEG", "WebP", "AVIF"]

SCALES = (1.0, 0.75, 0.5, 0.25)
"""Of the network's input side."""
QUALITIES = (10, 25, 50, 75, 90)
WEBP_CONTAINER_BYTES = 20
"""``RIFF``, size, ``WEBP``, ``VP8 ``, size."""
_AV1_CONSTANT = (1, 2)  # sequence header, temporal delimiter


@dataclass(frozen=True)
class Setting:
    """One way to code a picture."""

    codec: Name
    width: int
    height: int
    quality: int

    @property
    def side(self) -> tuple[int, int]:
        """(width, height)."""
        return self.width, self.height

    def __str__(self) -> str:
        """Read as ``WebP 96x96 q50``."""
        return f"{self.codec} {self.width}x{self.height} q{self.quality}"


@dataclass(frozen=True)
class Scored:
    """What a setting took and yielded, picture by picture."""

    setting: Setting | None
    """None: nothing lost, the picture as it is."""
    sizes: NDArray[np.int64]
    """Bytes that each picture costs, without what is the same in all; [N]."""
    file_sizes: NDArray[np.int64]
    """Bytes of each as a file; [N]."""
    correct: NDArray[np.bool_]
    """Whether the network then answered right; [N]."""

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return float(self.correct.mean())


def grid(spec: InputSpec) -> list[Setting]:
    """Every setting that is tried; none is left out afterwards."""
    sides = [(max(round(spec.width * scale), 1), max(round(spec.height * scale), 1)) for scale in SCALES]
    names: tuple[Name, ...] = ("JPEG", "WebP")
    return [Setting(name, *side, quality) for name in names for side in sides for quality in QUALITIES]


def encode(picture: Image.Image, setting: Setting) -> tuple[bytes, int]:
    """Code a picture of the setting's size; the file, and the bytes of it that are not the same in every picture."""
    if setting.codec == "WebP":
        data = _save(picture, "WEBP", quality=setting.quality, method=4)
        return data, len(data) - WEBP_CONTAINER_BYTES
    if setting.codec == "AVIF":
        grey = {"subsampling": "4:0:0"} if picture.mode == "L" else {}
        data = _save(picture, "AVIF", quality=setting.quality, max_threads=1, **grey)
        return data, av1_frame_bytes(data)
    # Huffman tables do not change the pixels, so the optimised file decodes to what the abbreviated one would.
    abbreviated = _save(picture, "JPEG", quality=setting.quality, streamtype=2)
    return _save(picture, "JPEG", quality=setting.quality, optimize=True), len(abbreviated)


def av1_frame_bytes(data: bytes) -> int:
    """Bytes of the coded picture in an AVIF file: what is left of its units without their headers and lengths.

    The file is boxes (length 4, name 4); ``mdat`` holds AV1's open bitstream units (type in bits 3 to 6 of the first
    byte, then the length as LEB128), of which the temporal delimiter and the sequence header are the same in all.
    """
    at = 0
    while data[at + 4 : at + 8] != b"mdat":
        at += int.from_bytes(data[at : at + 4])
    end, at, counted = at + int.from_bytes(data[at : at + 4]), at + 8, 0
    while at < end:
        kind, size, shift = data[at] >> 3 & 15, 0, 0
        at += 1
        while True:
            size |= (data[at] & 127) << shift
            at, shift = at + 1, shift + 7
            if data[at - 1] < 128:
                break
        counted += 0 if kind in _AV1_CONSTANT else size
        at += size
    return counted


def score(
    bundle: Bundle,
    pictures: Sequence[Image.Image],
    labels: Sequence[int],
    *,
    settings: Sequence[Setting] | None = None,
    progress: Callable[[int], None] = lambda _: None,
    workers: int | None = None,
) -> list[Scored]:
    """Score each setting on the same pictures; the first entry is what the network does when nothing is lost.

    Args:
        bundle: with a ``local.onnx`` that answers its first task.
        pictures: of any size; [N].
        labels: the right class of the first task for each; [N].
        settings: None for the whole :func:`grid`.
        progress: called with the number of pictures done.
        workers: threads; None for one a core.

    Raises:
        BundleError: the bundle has no such graph.
    """
    settings = grid(bundle.manifest.input) if settings is None else settings
    network = _network(bundle)
    spec = bundle.manifest.input
    rows: dict[int, NDArray[np.int64]] = {}
    with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
        jobs = {
            pool.submit(_row, network, spec, picture, label, settings): at
            for at, (picture, label) in enumerate(zip(pictures, labels, strict=True))
        }
        try:
            for job in as_completed(jobs):
                rows[jobs[job]] = job.result()
                progress(len(rows))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    table = np.stack([rows[at] for at in range(len(pictures))])  # [N, settings + 1, 3]
    return [
        Scored(setting, table[:, at, 0], table[:, at, 1], table[:, at, 2].astype(bool))
        for at, setting in enumerate([None, *settings])
    ]


def cheapest(scored: Sequence[Scored], codec: Name, accuracy: float, tolerance: float) -> Scored | None:
    """The setting of a codec with the fewest bytes that is at most `tolerance` below an accuracy; None if none is.

    Out of a grid of noisy figures this picks lucky settings more often than unlucky: it errs in the codec's favour.
    """
    good_enough = [
        one
        for one in scored
        if one.setting is not None and one.setting.codec == codec and one.accuracy >= accuracy - tolerance
    ]
    return min(good_enough, key=lambda one: float(one.sizes.mean()), default=None)


def standard_error(share: float, count: int) -> float:
    """Standard error of a share that was measured on so many pictures."""
    return math.sqrt(share * (1 - share) / count) if count else math.nan


def paired_standard_error(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Standard error of the difference of two accuracies on the same pictures, [N] each."""
    if len(one) < 2:
        return math.nan
    difference = one.astype(float) - other.astype(float)
    return float(difference.std(ddof=1)) / math.sqrt(len(difference))


def _row(
    network: ort.InferenceSession, spec: InputSpec, picture: Image.Image, label: int, settings: Sequence[Setting]
) -> NDArray[np.int64]:
    """(bytes, file bytes, right or not) of one picture untouched and at each setting, int64 [settings + 1, 3]."""
    picture = to_eight_bits(picture).convert(spec.mode)
    raw = spec.height * spec.width * spec.channels
    rows = [(raw, raw, _answer(network, spec, picture) == label)]
    small = {side: picture.resize(side, Image.Resampling.BILINEAR) for side in {one.side for one in settings}}
    for setting in settings:
        data, size = encode(small[setting.side], setting)
        with Image.open(io.BytesIO(data)) as decoded:
            rows.append((size, len(data), _answer(network, spec, decoded) == label))
    return np.array(rows, np.int64)


def _answer(network: ort.InferenceSession, spec: InputSpec, picture: Image.Image) -> int:
    (logits,) = network.run(["logits"], {"image": spec.apply(picture)[np.newaxis]})
    return int(np.argmax(logits[0]))


def _network(bundle: Bundle) -> ort.InferenceSession:
    # The demo's command loads onnxruntime only once its processes are done.
    from headwater.compression.inference import session  # noqa: PLC0415

    if "local.onnx" not in bundle:
        raise BundleError(
            f"the bundle {bundle.manifest.name} has no local.onnx, the unsplit network that scores image codecs; "
            "build it again with `headwater train`"
        )
    return session(bundle.read("local.onnx"))


def _save(picture: Image.Image, file_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()
