"""The local exit: confident frames are answered on the device, and nothing of them is sent.

    latent [C_w, H, W] ──exit.onnx──> logits [K] ──score──> at least the mode's threshold?  yes: the answer stands
                                                                                            no: the frame is sent

The user states how many points of accuracy may be lost against always sending; the bundle's calibration turns that
into a threshold for each mode when the agent starts (compression/exits.py says how, and why it holds).

Letters: C_w channels of a mode's latent, C of the full one, H W its sides, K classes, M modes.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwater.compression.errors import BundleError, SettingsError
from headwater.compression.exits import score_of
from headwater.device.head import session
from headwater.device.record import Result

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwater.compression.bundle import Bundle
    from headwater.compression.exits import ExitScore
    from headwater.device.settings import DeviceSettings

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Judged:
    """What the exit made of one latent."""

    results: dict[str, Result]
    """Its answer by task; empty where it is not sure enough, so that the frame has to be sent."""
    exit_ms: float
    """What that took."""


class LocalExit:
    """The bundle's exit, loaded and warm, with a threshold for each mode. Keeps no reference to the bundle."""

    def __init__(self, bundle: Bundle, max_drop: float, score: ExitScore = "softmax", threads: int = 1) -> None:
        """Load the exit; raises :class:`BundleError`, also where the bundle has none.

        Args:
            bundle: with an exit.
            max_drop: points of accuracy that may be lost against always sending.
            score: what confidence is measured by.
            threads: of its inference.
        """
        manifest, tables = bundle.manifest, bundle.exits
        assert manifest.exit is not None
        self.task = bundle.task(manifest.exit.task)
        self.thresholds = [tables.threshold_for(mode.index, max_drop, score) for mode in manifest.modes]
        """By mode; infinite where no threshold keeps the promise and every frame is sent."""
        self._score = score
        self._width_of = tables.width_of.tolist()
        self._latent = np.zeros(
            (1, manifest.latent.channels, manifest.latent.height, manifest.latent.width), np.float32
        )
        self._session = session(bundle.read("exit.onnx"), threads)
        self._warm_up(len(manifest.widths))
        if np.isinf(self.thresholds).all():
            least = min(float(tables.bound(mode.index, score).min()) for mode in manifest.modes)
            _log.warning(
                "the local exit answers no frame: max_drop is %g points, and the least that its calibration on %d "
                "images can promise is %.2f",
                *(max_drop, int(tables.images[0]), least),
            )

    @classmethod
    def of(cls, bundle: Bundle, settings: DeviceSettings) -> LocalExit | None:
        """The exit that the settings ask for, None if they ask for none.

        Raises :class:`SettingsError` where the bundle has no exit or the exit leaves a task open that is asked for.
        """
        if settings.max_drop is None:
            return None
        manifest = bundle.manifest
        if manifest.exit is None:
            raise SettingsError(
                f"max_drop is {settings.max_drop:g}, but the bundle {manifest.name} has no local exit; "
                "leave max_drop out, or build the bundle again with `headwater train`, which adds one."
            )
        asked = settings.tasks or tuple(task.name for task in manifest.tasks if task.labels)
        if asked != (manifest.exit.task,):
            raise SettingsError(
                f"max_drop is {settings.max_drop:g}, but the local exit of {manifest.name} answers only "
                f"{manifest.exit.task}, and {', '.join(asked)} are asked for, so that every frame has to be sent; "
                f"ask for that task alone (--tasks {manifest.exit.task}), or leave max_drop out."
            )
        return cls(bundle, settings.max_drop, settings.exit_score, settings.threads)

    def judge(self, latent: NDArray[np.float32], mode: int) -> Judged:
        """Answer a latent [C_w, H, W], before gain and rounding, if the mode's threshold is reached."""
        begin = time.perf_counter()
        logits = self.logits(latent, self._width_of[mode])
        sure = score_of(logits, self._score) >= self.thresholds[mode]
        results = {self.task.name: self._result(logits)} if sure else {}
        return Judged(results, (time.perf_counter() - begin) * 1e3)

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

    def _result(self, logits: NDArray[np.float32]) -> Result:
        weights = np.exp(logits.astype(np.float64) - logits.max())
        scores = dict(zip(self.task.labels, (weights / weights.sum()).tolist(), strict=True))
        best = self.task.labels[int(logits.argmax())]
        return Result(best, scores[best], scores)
