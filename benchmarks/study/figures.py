"""What a way to send pictures costs and yields on held-out images: one row of the study, as numbers and as JSON.

Whether each image was answered right is kept as bits, so that any two rows on the same split can be paired later.

Letters: N images, K classes.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.server.training.metrics import score

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Figures:
    """One row."""

    mean_bytes: float
    """Of a frame with its header, or of a coded picture without what is the same in all."""
    mean_file_bytes: float
    """As a plain file, where there is such a thing; else the same."""
    balanced_accuracy: float
    auroc: float | None
    """None where nothing is ranked."""
    correct: NDArray[np.bool_]
    """[N]."""

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return float(self.correct.mean())

    @classmethod
    def of(
        cls,
        sizes: NDArray[np.int64],
        logits: NDArray[np.float32],
        labels: NDArray[np.int64],
        file_sizes: NDArray[np.int64] | None = None,
    ) -> Figures:
        """Score logits [N, K] against labels [N]; sizes [N] in bytes."""
        scores = score(logits, labels)
        correct = logits.argmax(axis=1) == labels
        files = sizes if file_sizes is None else file_sizes
        return cls(float(sizes.mean()), float(files.mean()), scores.balanced_accuracy, scores.auroc, correct)

    @classmethod
    def of_nothing(cls, answer: int, labels: NDArray[np.int64]) -> Figures:
        """Nothing is sent and every image [N] gets the same answer."""
        return cls(0.0, 0.0, 1 / max(len(np.unique(labels)), 1), 0.5, labels == answer)

    def to_json(self) -> dict[str, Any]:
        """As plain data; a row of 656 images has about 250 bytes."""
        return {
            "bytes": round(self.mean_bytes, 2),
            "file_bytes": round(self.mean_file_bytes, 2),
            "accuracy": round(self.accuracy, 5),
            "balanced_accuracy": round(self.balanced_accuracy, 5),
            "auroc": None if self.auroc is None else round(self.auroc, 5),
            "images": len(self.correct),
            "correct": b64encode(np.packbits(self.correct).tobytes()).decode(),
        }

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> Figures:
        """Read what :meth:`to_json` wrote."""
        packed = np.frombuffer(b64decode(plain["correct"]), np.uint8)
        correct = np.unpackbits(packed, count=plain["images"]).astype(np.bool_)
        return cls(plain["bytes"], plain["file_bytes"], plain["balanced_accuracy"], plain["auroc"], correct)
