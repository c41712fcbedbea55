"""The local exit's calibration: from the accuracy that may be lost to the score from which a device answers itself.

A small classifier on the device sees the latent before it is coded. Where its *score* reaches a threshold, its answer
stands and nothing is sent; else the server answers (cascaded inference). There are two scores of its logits z:

    softmax   max_k softmax(z)_k                 the confidence, calibrated by a temperature (Guo et al., ICML 2017)
    energy    log sum_k exp(z_k)                 the negative free energy (Liu et al., NeurIPS 2020), by which EBJR
                                                 (Akbari et al., BMVC 2021) chooses between a small and a large model

What it makes of a picture also goes with a frame that is sent, as its *opinion*: one byte, an index into O logit
vectors that both ends have. The server joins it with its tail's own logits, their mean: the exit reads the latent
before it is quantised, and two classifiers that differ are right more often than either of them (late fusion; Kittler
et al., "On combining classifiers", TPAMI 1998).

``exit.safetensors`` holds, measured on N held-out images, what each of T thresholds does, so that the user names a
*drop*, in points of accuracy against always sending, and no threshold:

    temperature        float32  [W]          what the logits of ``exit.onnx`` were divided by, at each width
    threshold          float64  [S, W, T]    rising; scores from there on are answered on the device
    share              float32  [S, W, T]    of the images that are
    drop               float32  [S, M, T]    points that the cascade is behind always sending, in each mode
    calibration_error  float32  [2, W]       expected calibration error before and after the temperature, 0 to 1
    width_of           uint8    [M]          index of each mode's width
    images             uint32   [1]          N
    opinions           float32  [O, K]       logits by opinion, before any temperature, O up to 256; none where
                                             devices say none

How the promise holds on images that nobody has seen: to take the lowest threshold whose measured drop is allowed
picks, among hundreds, the one that was lucky on these images. Conformal risk control (Angelopoulos et al., ICLR 2024)
says how much to hold back: count one more image, lost, and go down from the top only as far as no threshold on the way
was over the limit. The expected loss on the next image is then within the limit, for any model and any distribution,
where the loss cannot fall when the threshold does. That of a cascade can, now and then, because the exit is right where
the server is wrong; so here the bound is approximate. In simulation an upper confidence limit held too but answered a
third fewer frames, and a smoothed curve (isotonic regression) broke the promise as often as not.

Letters: S scores, W widths, M modes, T thresholds, N images, K classes, O opinions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np

from headwater.compression.arrays import ArrayFile

if TYPE_CHECKING:
    from numpy.typing import NDArray

ExitScore = Literal["softmax", "energy"]
SCORES: tuple[ExitScore, ...] = get_args(ExitScore)
MAX_THRESHOLDS = 10_000
MAX_OPINIONS = 256


def joined(logits: NDArray[np.float32], opinion: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the server answers: logits [..., K] of its tail and those of the device's opinion, their mean."""
    return np.asarray((logits + opinion) / np.float32(2))


def score_of(logits: NDArray[Any], score: ExitScore) -> NDArray[np.float64]:
    """Score of logits [..., K], the temperature applied: [...]; the higher, the surer."""
    z = logits.astype(np.float64)
    top = z.max(axis=-1)
    rest = np.log(np.exp(z - top[..., np.newaxis]).sum(axis=-1))  # at least 0: the top's own share is 1
    return np.asarray(np.exp(-rest) if score == "softmax" else top + rest)


@dataclass(frozen=True, eq=False)
class ExitTables(ArrayFile):
    """What each threshold of the local exit does; checked when made. See the module's text for the arrays."""

    FILE: ClassVar[str] = "exit.safetensors"
    DTYPES: ClassVar[Mapping[str, type[np.generic]]] = {
        "temperature": np.float32,
        "threshold": np.float64,
        "share": np.float32,
        "drop": np.float32,
        "calibration_error": np.float32,
        "width_of": np.uint8,
        "images": np.uint32,
        "opinions": np.float32,
    }

    temperature: NDArray[np.float32]
    threshold: NDArray[np.float64]
    share: NDArray[np.float32]
    drop: NDArray[np.float32]
    calibration_error: NDArray[np.float32]
    width_of: NDArray[np.uint8]
    images: NDArray[np.uint32]
    opinions: NDArray[np.float32]

    def __post_init__(self) -> None:
        """Check every array against the others; raises :class:`BundleError`."""
        self.check_dtypes()
        self._check_shapes()
        self._check_values()

    def _check_shapes(self) -> None:
        if self.threshold.ndim != 3 or not 1 <= self.threshold.shape[2] <= MAX_THRESHOLDS:
            raise self.wrong(
                f"threshold has shape {self.threshold.shape}; want [S, W, T], T from 1 to {MAX_THRESHOLDS}"
            )
        if self.opinions.ndim != 2 or len(self.opinions) > MAX_OPINIONS or self.opinions.shape[1] < 2:
            raise self.wrong(f"opinions has shape {self.opinions.shape}; want [O, K], O up to {MAX_OPINIONS}")
        S, W, T = len(SCORES), self.widths, self.threshold.shape[2]
        wanted = {
            "threshold": (S, W, T),
            "share": (S, W, T),
            "drop": (S, self.modes, T),
            "calibration_error": (2, W),
            "width_of": (self.modes,),
            "temperature": (W,),
            "images": (1,),
        }
        self.check_shapes(wanted)

    def _check_values(self) -> None:
        if not all(np.isfinite(getattr(self, name)).all() for name in self.DTYPES):
            raise self.wrong("a number is not finite")
        if (np.diff(self.threshold, axis=2) < 0).any():
            raise self.wrong("thresholds do not rise")
        if (self.temperature <= 0).any() or not self.images[0]:
            raise self.wrong("a temperature or the number of images is not above 0")
        if self.modes == 0 or (self.width_of >= self.widths).any():
            raise self.wrong(f"width_of is {self.width_of.tolist()}; want an index below {self.widths} for each mode")
        if (np.abs(self.drop) > 100).any() or (self.share < 0).any() or (self.share > 1).any():
            raise self.wrong("a drop is beyond 100 points, or a share beyond 0 to 1")

    @property
    def widths(self) -> int:
        """W, the number of widths."""
        return int(self.temperature.size)

    @property
    def modes(self) -> int:
        """M, the number of modes."""
        return int(self.width_of.size)

    def opinion(self, logits: NDArray[np.float32], width: int) -> int | None:
        """The opinion nearest to logits [K] of ``exit.onnx`` at the width of this index; None where there are none.

        A temperature says how far to trust the exit where it stands alone, and is taken back: the opinions are of the
        logits that it was trained by.
        """
        if not len(self.opinions):
            return None
        raw = (logits - logits.mean()) * self.temperature[width]
        return int(np.square(self.opinions - raw).sum(axis=1).argmin())

    def bound(self, mode: int, score: ExitScore) -> NDArray[np.float64]:
        """Points that each threshold may lose on unseen images, [T]: never rising with the threshold."""
        N = int(self.images[0])
        drop = (N * self.drop[SCORES.index(score), mode].astype(np.float64) + 100) / (N + 1)
        return np.asarray(np.maximum.accumulate(drop[::-1])[::-1])

    def threshold_for(self, mode: int, max_drop: float, score: ExitScore) -> float:
        """The lowest threshold from which on the bound is within ``max_drop`` points; infinite where there is none."""
        at = self._first_within(mode, max_drop, score)
        return float("inf") if at is None else float(self.threshold[SCORES.index(score), self.width_of[mode], at])

    def share_within(self, mode: int, max_drop: float, score: ExitScore) -> float:
        """Share of the calibration's images that this threshold lets the device answer."""
        at = self._first_within(mode, max_drop, score)
        return 0.0 if at is None else float(self.share[SCORES.index(score), self.width_of[mode], at])

    def behind(self, mode: int) -> float:
        """Points that the exit alone is behind always sending in this mode: what the lowest threshold loses."""
        return float(self.drop[SCORES.index("softmax"), mode, 0])

    def _first_within(self, mode: int, max_drop: float, score: ExitScore) -> int | None:
        allowed = np.flatnonzero(self.bound(mode, score) <= max_drop)
        return int(allowed[0]) if allowed.size else None
