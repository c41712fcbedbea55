"""The local exit: an answer of the device's own to every frame, and how sure it is of it.

    latent [C_w, H, W] ──exit.onnx──> logits [K] ──score──> at least the mode's threshold?  yes: the answer stands
                                                                                            no: the frame is sent

It runs wherever the bundle has one on a task that is asked for: what it says goes with the frame, as a byte that the
server joins with its own (compression/exits.py). Its answer stands by itself only with ``max_drop``: the user states
how many points of accuracy may be lost against always sending, and the bundle's calibration turns that into a threshold
for each mode when the agent starts. With a deadline it is kept for the case that the server's does not come by then.

Letters: C_w channels of a mode's latent, C of the full one, H W its sides, K classes, M modes.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from headwater.compression.errors import BundleError, SettingsError
from headwater.compression.exits import score_of
from headwater.compression.inference import session
from headwater.device.answers import from_logits
from headwater.device.tasks import asked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from headwater.compression.bundle import Bundle
    from headwater.compression.exits import ExitScore
    from headwater.device.record import Result
    from headwater.device.settings import DeviceSettings

STEPS_IN = 0.01
"""How much less than the worst mode an exit counts for that is only to step in."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Judged:
    """What the exit made of one latent."""

    results: dict[str, Result]
    """Its answer by task."""
    confidence: float
    """The score of that answer: a probability, or an energy, as the settings ask."""
    sure: bool
    """Whether the answer may stand without asking the server."""
    opinion: int | None = None
    """The same for the server; None where the bundle knows none."""


class LocalExit:
    """The bundle's exit, loaded and warm, with a threshold for each mode. Keeps no reference to the bundle."""

    def __init__(
        self,
        bundle: Bundle,
        max_drop: float | None = None,
        score: ExitScore = "softmax",
        threads: int = 1,
        *,
        answers: bool = True,
    ) -> None:
        """Load the exit; raises :class:`BundleError`, also where the bundle has none.

        Args:
            bundle: with an exit.
            max_drop: points of accuracy that may be lost against always sending; None: it is never sure.
            score: what confidence is measured by.
            threads: of its inference.
            answers: whether its answer is all that is asked for, and may be wanted; else it has an opinion only.
        """
        self.answers = answers
        """Whether it may step in, or answer by itself."""
        manifest, tables = bundle.manifest, bundle.exits
        assert manifest.exit is not None
        self.task = bundle.task(manifest.exit.task)
        self.thresholds = [
            math.inf if max_drop is None else tables.threshold_for(mode.index, max_drop, score)
            for mode in manifest.modes
        ]
        """By mode; infinite where no threshold keeps the promise and every frame is sent."""
        self.accuracy = _accuracy(bundle)
        """Share of right answers by width, on the bundle's held-out images, if it answers every one of them."""
        self.counts_as = self.accuracy if max_drop is not None else _behind_every_mode(bundle, self.accuracy)
        """By width, what the controller reckons with. Who has not said with ``max_drop`` that the exit may answer wants
        the server's answers: then it counts for less than any of them, however good it is, and only steps in."""
        self._score = score
        self._tables = tables
        self._width_of = tables.width_of.tolist()
        self._latent = np.zeros(
            (1, manifest.latent.channels, manifest.latent.height, manifest.latent.width), np.float32
        )
        self._session = session(bundle.read("exit.onnx"), threads)
        self._warm_up(len(manifest.widths))
        if max_drop is not None and np.isinf(self.thresholds).all():
            least = min(float(tables.bound(mode.index, score).min()) for mode in manifest.modes)
            _log.warning(
                "the local exit answers no frame: max_drop is %g points, and the least that its calibration on %d "
                "images can promise is %.2f",
                *(max_drop, int(tables.images[0]), least),
            )

    @classmethod
    def of(cls, bundle: Bundle, settings: DeviceSettings) -> LocalExit | None:
        """The bundle's exit; None where it has none, or has nothing to do.

        It has something to do where it has leave to answer (``max_drop``) or may have to step in (``deadline_ms``), and
        leaves no task open that is asked for; and where it has an opinion on one of them. Raises
        :class:`SettingsError` where it leaves one open and ``max_drop`` is set.
        """
        manifest = bundle.manifest
        tasks = asked(manifest, settings.tasks)
        wanted = settings.max_drop is not None or settings.deadline_ms is not None
        if wanted and manifest.exit is not None and tasks == (manifest.exit.task,):
            return cls(bundle, settings.max_drop, settings.exit_score, settings.threads)
        if settings.max_drop is None:
            heard = manifest.exit is not None and manifest.exit.task in tasks and len(bundle.exits.opinions)
            return cls(bundle, None, settings.exit_score, settings.threads, answers=False) if heard else None
        if manifest.exit is None:
            raise SettingsError(
                f"max_drop is {settings.max_drop:g}, but the bundle {manifest.name} has no local exit; "
                "leave max_drop out, or build the bundle again with `headwater train`, which adds one."
            )
        raise SettingsError(
            f"max_drop is {settings.max_drop:g}, but the local exit of {manifest.name} answers only "
            f"{manifest.exit.task}, and {', '.join(tasks)} are asked for, so that every frame has to be sent; "
            f"ask for that task alone (--tasks {manifest.exit.task}), or leave max_drop out."
        )

    def judge(self, latent: NDArray[np.float32], mode: int) -> Judged:
        """Answer a latent [C_w, H, W], before gain and rounding; sure where the mode's threshold is reached."""
        logits = self.logits(latent, self._width_of[mode])
        confidence = float(score_of(logits, self._score))
        results = {self.task.name: from_logits(self.task.labels, logits)}
        opinion = self._tables.opinion(logits, self._width_of[mode])
        return Judged(results, confidence, confidence >= self.thresholds[mode], opinion)

    def logits(self, latent: NDArray[np.float32], width: int) -> NDArray[np.float32]:
        """Run the exit on a latent [C_w, H, W] of the width of this index; [K], the temperature applied."""
        self._latent[0, : len(latent)] = latent
        self._latent[0, len(latent) :] = 0
        feed = {"latent": self._latent, "width": np.array([width], np.int64)}
        (logits,) = self._session.run(("logits",), feed)
        array: NDArray[np.float32] = logits[0]
        return array

    def _warm_up(self, widths: int) -> None:
        """Run every width once, so that a graph which does not fit the manifest is found out before the first frame."""
        K = len(self.task.labels)
        for width in range(widths):
            try:
                logits = self.logits(self._latent[0], width)
            # onnxruntime's exceptions derive from Exception only, a class for each of its status codes.
            except Exception as error:
                raise BundleError(
                    f"exit.onnx does not run at width {width}: {error}; build the bundle again"
                ) from error
            if logits.shape != (K,) or not np.isfinite(logits).all():
                raise BundleError(
                    f"exit.onnx gives logits of shape {logits.shape}; want {K} finite numbers, one a label of "
                    f"{self.task.name}; build the bundle again"
                )


def _behind_every_mode(bundle: Bundle, accuracy: Mapping[float, float]) -> dict[float, float]:
    manifest = bundle.manifest
    assert manifest.exit is not None
    least = min(mode.accuracy[manifest.exit.task] for mode in manifest.modes) - STEPS_IN
    return {width: min(each, least) for width, each in accuracy.items()}


def _accuracy(bundle: Bundle) -> dict[float, float]:
    """From what the exit is behind each mode of a width: they all say the same but for rounding."""
    manifest, found = bundle.manifest, {}
    assert manifest.exit is not None
    for width in manifest.widths:
        modes = [mode for mode in manifest.modes if mode.width == width]
        found[width] = fmean(
            mode.accuracy[manifest.exit.task] - bundle.exits.behind(mode.index) / 100 for mode in modes
        )
    return found
