"""The whole model on the device: no frame, no server, as accurate as the network before it was split.

On a strong device with a small model that is often the best there is. It is off unless it is asked for, since it takes
the memory of the whole network; and as it takes its time too, the controller is told what that was, from a few runs
when the agent starts and then from each picture that it answers.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from headwater.compression.errors import BundleError, SettingsError
from headwater.compression.inference import session
from headwater.device.answers import from_logits
from headwater.device.tasks import asked

if TYPE_CHECKING:
    from headwater.compression.bundle import Bundle
    from headwater.compression.manifest import Manifest
    from headwater.device.record import Result
    from headwater.device.settings import DeviceSettings

WHOLE = "local.onnx"
"""The graph in a bundle: `image` uint8 [1, C_in, H_in, W_in] to `logits` [1, K] of the bundle's first task."""
WARM_UP, FIRST_RUNS = 2, 5
MEMORY = 32
"""Runs that the time is judged by."""
SLOW_QUANTILE = 0.95


@dataclass(frozen=True)
class Answered:
    """A picture that the whole model answered."""

    results: dict[str, Result]
    prepare_ms: float
    """Converting and scaling the decoded picture."""
    whole_ms: float
    """The network."""


class WholeModel:
    """The unsplit network, loaded and warm. One thread at a time; keeps no reference to the bundle."""

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        """Load it and measure it; raises :class:`BundleError`, also where the bundle has none."""
        self.task = bundle.manifest.tasks[0]
        self.accuracy = measured_accuracy(bundle.manifest, self.task.name)
        """Share of right answers on the bundle's held-out images."""
        self._input = bundle.manifest.input
        self._session = session(bundle.read(WHOLE), threads)
        self._times_ms: deque[float] = deque(maxlen=MEMORY)
        C, H, W = self._input.shape
        blank = Image.new("L" if C == 1 else "RGB", (W, H))
        try:
            for _ in range(WARM_UP + FIRST_RUNS):
                first = self.answer(blank)
        # onnxruntime's exceptions derive from Exception only, a class for each of its status codes.
        except Exception as error:
            raise BundleError(f"{WHOLE} does not run: {error}; build the bundle again") from error
        if not all(map(math.isfinite, first.results[self.task.name].scores.values())):
            raise BundleError(f"{WHOLE} gives scores that are no numbers; build the bundle again")
        for _ in range(WARM_UP):
            self._times_ms.popleft()

    @classmethod
    def of(cls, bundle: Bundle, settings: DeviceSettings) -> WholeModel | None:
        """The whole model where the settings ask for it; raises :class:`SettingsError` where it cannot be had."""
        if not settings.whole_model:
            return None
        name, task = bundle.manifest.name, bundle.manifest.tasks[0].name
        if WHOLE not in bundle:
            raise SettingsError(
                f"whole_model is set, but the bundle {name} has no {WHOLE}; leave --whole-model out, or build the "
                "bundle again with `headwater train`, which adds it."
            )
        tasks = asked(bundle.manifest, settings.tasks)
        if tasks != (task,):
            raise SettingsError(
                f"whole_model is set, but the whole model of {name} answers only {task}, and {', '.join(tasks)} are "
                f"asked for; ask for that task alone (--tasks {task}), or leave --whole-model out."
            )
        return cls(bundle, settings.threads)

    @property
    def slow_ms(self) -> float:
        """Slow end of what the last pictures took, from the decoded picture to the answer."""
        ordered = sorted(self._times_ms)
        return ordered[math.ceil(SLOW_QUANTILE * len(ordered)) - 1]

    def answer(self, picture: Image.Image) -> Answered:
        """Answer a picture of any size and form."""
        begin = time.perf_counter()
        image = self._input.apply(picture)
        prepared = time.perf_counter()
        (logits,) = self._session.run(("logits",), {"image": image[np.newaxis]})
        results = {self.task.name: from_logits(self.task.labels, logits[0])}
        end = time.perf_counter()
        self._times_ms.append((end - begin) * 1e3)
        return Answered(results, (prepared - begin) * 1e3, (end - prepared) * 1e3)


def measured_accuracy(manifest: Manifest, task: str) -> float:
    """Of the whole model, as measured; where the manifest does not say, of the best mode, which is split from it."""
    measured: float | None = manifest.measured.get("local", {}).get(task, {}).get("accuracy")
    return max(mode.accuracy[task] for mode in manifest.modes) if measured is None else measured
