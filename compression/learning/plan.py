"""What a device is asked to train, and what comes of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headwater.compression.errors import LearningError
from headwater.compression.learning.layout import PARTS, Part
from headwater.compression.learning.optimizers import NAMES, Name

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Plan:
    """One device's training in one round; checked when made."""

    width: float = 1.0
    """The widest that is trained, along with all narrower ones."""
    part: Part = "all"
    """``head``: head, gains, prior and exit by a loss at the cut; decoder and tails are not even run."""
    epochs: float = 1.0
    """Passes over the images; a share of one is possible."""
    batch: int = 16
    """Images a step."""
    at_once: int = 0
    """Images that go through the network together, which decides the memory; 0: the whole batch. The steps are the
    same, since nothing in the network looks at more than one image."""
    rate: float = 1e-3
    optimizer: Name = "scaled"
    seed: int = 0
    distil: float = 1.0
    """Weight of the answers of wider widths, and of latents as they came where the head is trained alone."""
    logit_adjustment: float = 1.0
    """How much of the skew of the labels here is taken out of the loss (:func:`.losses.label_shift`); 1: all of it."""
    gather: str = ""
    """How to tell what channels matter (:data:`headwater.compression.learning.importance.METHODS`); empty: not."""
    seconds: float = 0.0
    """Processor time after which no step is begun; 0: any. With a limit a round does not repeat to the last bit."""

    def __post_init__(self) -> None:
        """Raise :class:`LearningError` for what cannot be trained."""
        names = ("epochs", "rate", "distil", "logit_adjustment", "seconds")
        real = {name: getattr(self, name) for name in names}
        if bad := [f"{name} = {value}" for name, value in real.items() if not (math.isfinite(value) and value >= 0)]:
            raise LearningError(f"of a plan {', '.join(bad)} has to be a number of at least 0")
        if self.epochs == 0 or self.batch < 1 or self.at_once < 0:
            raise LearningError(
                f"a plan of {self.epochs} epochs, {self.batch} images a step and {self.at_once} at once trains nothing"
            )
        if self.part not in PARTS or self.optimizer not in NAMES:
            raise LearningError(
                f"a plan is for the part {self.part!r} by {self.optimizer!r}; there are {', '.join(PARTS)} and "
                f"{', '.join(NAMES)}"
            )


@dataclass(frozen=True)
class Trained:
    """What came of it."""

    delta: Mapping[str, NDArray[np.float32]] = field(repr=False)
    """Arrays of the sub-network that was trained, less what they were."""
    metrics: Mapping[str, float]
    """num-examples, loss, task, bytes, seconds, peak-bytes, steps."""
    gathered: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False)
    """What pruning wants to know."""
