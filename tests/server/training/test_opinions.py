"""The codebook of opinions: near to every logit, and the same at every call."""

import numpy as np
import pytest

from headwater.server.training.opinions import codebook


def logits(count: int, classes: int) -> np.ndarray:
    rng = np.random.default_rng(classes)
    return rng.normal(0, 3, (count, classes)).astype(np.float32) + rng.normal(0, 50, (count, 1)).astype(np.float32)


@pytest.mark.parametrize(("classes", "size", "error"), [(2, 256, 0.02), (2, 16, 0.5), (3, 256, 0.4), (10, 256, 2.5)])
def test_some_opinion_is_near_to_every_logit(classes: int, size: int, error: float) -> None:
    found = logits(2000, classes)
    book = codebook(found, size)
    assert book.shape == (size, classes)
    assert book.dtype == np.float32
    centred = found - found.mean(axis=1, keepdims=True)
    squared = np.square(centred[:, None] - book[None]).sum(axis=2).min(axis=1) / classes
    assert np.sqrt(squared.mean()) < error
    np.testing.assert_array_equal(book, codebook(found, size))
    np.testing.assert_allclose(book.sum(axis=1), 0, atol=1e-3)


def test_a_wrong_side_is_never_nearest_for_two_classes() -> None:
    found = logits(500, 2)
    book = codebook(found)
    centred = found - found.mean(axis=1, keepdims=True)
    nearest = book[np.square(centred[:, None] - book[None]).sum(axis=2).argmin(axis=1)]
    sure = np.abs(found[:, 0] - found[:, 1]) > 0.1
    assert (nearest.argmax(axis=1) == found.argmax(axis=1))[sure].all()


def test_few_logits_give_few_opinions() -> None:
    np.testing.assert_allclose(codebook(np.array([[1, 2], [3, 4], [0, 5]], np.float32)), [[-2.5, 2.5], [-0.5, 0.5]])
