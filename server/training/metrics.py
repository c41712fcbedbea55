"""Figures of a classifier on held-out images: accuracy, balanced accuracy, AUROC.

Legend: N images, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Scores:
    """What a task's answers are worth; all between 0 and 1."""

    accuracy: float
    balanced_accuracy: float
    """Mean of the classes' recalls: chance is 1 / K however rare a class is."""
    auroc: float | None
    """Area under the ROC curve; with more than two classes the mean of each one against the rest.

    None where all images are of one class, so that there is nothing to rank.
    """


def score(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Scores:
    """Score logits [N, K] against labels [N]; a class without images is left out of the two means."""
    K = logits.shape[1]
    predicted = logits.argmax(axis=1)
    present = [k for k in range(K) if (labels == k).any()]
    recalls = [float((predicted[labels == k] == k).mean()) for k in present]
    shares = softmax(logits)
    # With two classes the second's curve mirrors the first's.
    curves = [auroc(shares[:, k], labels == k) for k in (present if K > 2 else present[-1:]) if (labels != k).any()]
    return Scores(
        float((predicted == labels).mean()),
        float(np.mean(recalls)),
        float(np.mean(curves)) if curves else None,
    )


def auroc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Probability that a positive scores above a negative, ties counted half (Mann and Whitney, 1947)."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positives = int(positive.sum())
    negatives = len(positive) - positives
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Class probabilities [N, K]."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def confusion(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts [K, K]: row = true class, column = answer."""
    K = logits.shape[1]
    return np.bincount(labels * K + logits.argmax(axis=1), minlength=K * K).reshape(K, K)
