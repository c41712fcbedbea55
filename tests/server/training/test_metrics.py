"""Accuracy, balanced accuracy, AUROC against scikit-learn."""

import numpy as np
import pytest

from headwater.server.training.metrics import auroc, confusion, score

metrics = pytest.importorskip("sklearn.metrics")


@pytest.mark.parametrize("classes", [2, 5])
def test_figures_are_those_of_scikit_learn(classes: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 400)
    logits = rng.normal(0, 1, (400, classes)).astype(np.float32)
    logits[np.arange(400), labels] += 1
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    ours = score(logits, labels)
    assert ours.accuracy == pytest.approx(metrics.accuracy_score(labels, logits.argmax(axis=1)))
    assert ours.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(labels, logits.argmax(axis=1)))
    theirs = metrics.roc_auc_score(labels, shares[:, 1] if classes == 2 else shares, multi_class="ovr")
    assert ours.auroc == pytest.approx(theirs, abs=1e-6)
    assert (confusion(logits, labels) == metrics.confusion_matrix(labels, logits.argmax(axis=1))).all()


def test_ties_count_half() -> None:
    assert auroc(np.array([0.5, 0.5, 0.5, 0.5]), np.array([True, False, True, False])) == 0.5


def test_a_class_without_images_is_left_out() -> None:
    logits = np.array([[3, 0, 0], [0, 3, 0]], np.float32)
    assert score(logits, np.array([0, 1])).balanced_accuracy == 1.0
