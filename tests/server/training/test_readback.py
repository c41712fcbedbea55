"""A tail read back from its graph computes what the graph does, before and after its norms are restored."""

import dataclasses

import numpy as np
import onnxruntime as ort
import pytest
import torch

from headwater.compression.bundle import Bundle
from headwater.compression.errors import BundleError
from headwater.compression.learning.reading import read_tail
from headwater.compression.learning.tail import Tail
from headwater.server.training.graphs import tail_graph
from headwater.server.training.lite import Lite0, load_pretrained
from headwater.server.training.readback import restore_norms
from tests import tiny

CUT = 6


@pytest.fixture(scope="module")
def features() -> torch.Tensor:
    return torch.randn(6, 80, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def bundle(features: torch.Tensor) -> Bundle:
    """The tiny bundle with a real tail for its first task."""
    torch.manual_seed(0)
    model = Lite0(1, [3], CUT)
    load_pretrained(model)
    tail = next(model.typed_tails())
    tail.train()(features * 2 + 1)  # statistics of its own
    data, _ = tail_graph(tail.eval(), 80, 4)
    files = {name: tiny.bundle().read(name) for name in tiny.bundle().manifest.files}
    return Bundle.build(tiny.bundle().manifest, files | {"tail_shape.onnx": data})


def answers(tail: Tail, features: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(tail.eval()(features).numpy())


def test_it_computes_what_the_graph_does(bundle: Bundle, features: torch.Tensor) -> None:
    session = ort.InferenceSession(bundle.read("tail_shape.onnx"), providers=["CPUExecutionProvider"])
    (wanted,) = session.run(["logits"], {"features": features.numpy()})
    tail = read_tail(bundle, bundle.manifest.tasks[0])
    np.testing.assert_allclose(answers(tail, features), wanted, atol=1e-3)
    assert np.ptp(wanted) > 0.1


def test_restored_norms_change_nothing_but_know_what_they_meet(bundle: Bundle, features: torch.Tensor) -> None:
    tail = read_tail(bundle, bundle.manifest.tasks[0])
    before, known = answers(tail, features), answers(tail, features / 2)
    restore_norms(tail, features)
    assert not any(module.training for module in tail.modules())
    np.testing.assert_allclose(answers(tail, features), before, atol=1e-3)
    np.testing.assert_allclose(answers(tail, features / 2), known, atol=1e-3)
    tail.train()
    tail.dropout.p = 0.0
    with torch.no_grad():
        training = tail(features).numpy()
    # Its batch has the statistics that the norms know, but for the correction of the variance.
    np.testing.assert_allclose(training, before, atol=0.1 * np.ptp(before))


def test_a_tail_of_other_making_is_a_bundle_error(bundle: Bundle, tiny_bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"tail_shape.onnx of the bundle tiny has nothing under tail.top.bias"):
        read_tail(tiny_bundle, tiny_bundle.manifest.tasks[0])
    fewer = dataclasses.replace(bundle.manifest.tasks[0], labels=("left", "right"))
    with pytest.raises(BundleError, match=r"has \[3, 1280\] under tail.classify.weight, .* has \[2, 1280\]"):
        read_tail(bundle, fewer)
