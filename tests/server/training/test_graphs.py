"""Each ONNX graph against the module it came from."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from headwater.compression.image import InputSpec
from headwater.compression.learning.samples import normalise
from headwater.server.training import graphs
from headwater.server.training.lite import Lite0, load_pretrained
from headwater.server.training.recipe import Recipe
from headwater.server.training.reconstruct import Reconstructor
from headwater.server.training.student import Student

SPEC = InputSpec("L", 64, 64)
RECIPE = Recipe(colour="L", side=64, latent_channels=6, groups=3)


@pytest.fixture(scope="module")
def student() -> Student:
    torch.manual_seed(0)
    teacher = Lite0(1, [3], RECIPE.cut)
    load_pretrained(teacher)
    made = Student(teacher, RECIPE)
    made.start_from(teacher.eval().features(torch.randn(64, 1, 64, 64)))
    torch.nn.init.normal_(made.decoder.leave.weight, std=0.1)
    torch.nn.init.normal_(made.decoder.shift, std=0.5)
    with torch.no_grad():  # statistics of their own for each width
        for width in RECIPE.widths:
            made.train().head(torch.randn(4, 1, 64, 64) + width, width)
    return made.eval()


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, *SPEC.shape), dtype=np.uint8)


def _run(graph: bytes, feeds: dict[str, np.ndarray]) -> np.ndarray:
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, feeds)
    assert isinstance(result, np.ndarray)
    return result


@pytest.mark.parametrize("width", RECIPE.widths)
def test_head(student: Student, image: np.ndarray, width: float) -> None:
    data, graph = graphs.head_graph(student.head, width, SPEC)
    with torch.no_grad():
        wanted = student.head(normalise(torch.from_numpy(image)), width).numpy()
    # Weights are stored in half precision.
    np.testing.assert_allclose(_run(data, {"image": image}), wanted, rtol=1e-3, atol=0.03 * wanted.std())
    assert graph.macs > 0


def test_narrow_heads_cost_less(student: Student) -> None:
    macs = [graphs.head_graph(student.head, width, SPEC)[1].macs for width in RECIPE.widths]
    assert macs == sorted(macs)
    assert macs[0] < 0.35 * macs[-1]


def test_decoder_takes_every_mode_in_one_batch(student: Student) -> None:
    data, _ = graphs.decoder_graph(student.decoder, 8)
    modes = torch.tensor([0, 7, 19])
    latent = torch.randn(3, 6, 8, 8)
    with torch.no_grad():
        wanted = student.decoder(latent, modes).numpy()
    got = _run(data, {"latent": latent.numpy(), "mode": modes.numpy()})
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=5e-3)


def test_tail_within_the_rounding_of_its_stored_weights(student: Student) -> None:
    tail = next(student.typed_tails())
    data, _ = graphs.tail_graph(tail, 80, 8)
    features = student.decoder(torch.randn(5, 6, 8, 8), torch.arange(5)).detach()
    with torch.no_grad():
        wanted = tail(features).numpy()
    got = _run(data, {"features": features.numpy()})
    assert np.abs(got - wanted).max() < 0.05 * np.abs(wanted).max() + 0.05
    assert len(data) < 4_500_000, "large weights are stored in 8 bits"


@pytest.mark.parametrize(("channels", "doublings"), [(1, 4), (3, 2)])
def test_a_picture_within_the_rounding_of_its_stored_weights(channels: int, doublings: int) -> None:
    torch.manual_seed(0)
    model = Reconstructor(80, channels, doublings)
    features = 9 * torch.randn(2, 80, 8, 8)
    data, graph = graphs.picture_graph(model, 80, 8)
    with torch.no_grad():
        wanted = model(features).clamp(0, 255).numpy()
    got = _run(data, {"features": features.numpy()})
    side = 8 << doublings
    assert got.shape == (2, channels, side, side)
    assert wanted.std() > 5
    assert np.abs(got - wanted).mean() < 0.02 * wanted.std()
    assert graph.macs < 60e6


def test_a_head_takes_many_images_at_a_time_as_it_takes_one(student: Student) -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, *SPEC.shape), dtype=np.uint8)
    data, _ = graphs.head_graph(student.head, 0.5, SPEC)
    together = _run(graphs.with_batch(data), {"image": images})
    alone = np.concatenate([_run(data, {"image": image[np.newaxis]}) for image in images])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_local_is_the_unsplit_network(image: np.ndarray) -> None:
    torch.manual_seed(0)
    model = Lite0(1, [3], 4)
    load_pretrained(model)
    data, graph = graphs.local_graph(model.eval(), SPEC)
    with torch.no_grad():
        wanted = model(normalise(torch.from_numpy(image)))[0].numpy()
    assert np.abs(_run(data, {"image": image}) - wanted).max() < 0.05 * np.abs(wanted).max() + 0.05
    assert 3_000_000 < graph.parameters < 4_000_000


def _convolutions(data: bytes) -> list[str]:
    return [node.name for node in onnx.load_from_string(data).graph.node if node.op_type == "Conv"]


def test_a_projection_is_part_of_the_next_expansion_where_that_saves_multiply_adds(student: Student) -> None:
    narrow, wide = (_convolutions(graphs.head_graph(student.head, width, SPEC)[0]) for width in (0.25, 1.0))
    assert set(wide) - set(narrow) == {"early.0.project", "early.1.project"}
    assert not set(narrow) - set(wide)


def _activations(data: bytes) -> dict[str, str]:
    nodes = onnx.load_from_string(data).graph.node
    return {node.name.rpartition(".")[0]: node.op_type for node in nodes if node.op_type in {"Relu", "Clip"}}


def test_a_head_s_expansions_rectify_without_a_ceiling_and_nothing_of_the_unsplit_network(student: Student) -> None:
    for name, kind in _activations(graphs.head_graph(student.head, 1.0, SPEC)[0]).items():
        assert kind == ("Relu" if name.endswith(".expand") else "Clip"), name
    local, _ = graphs.local_graph(Lite0(1, [3], 4).eval(), SPEC)
    assert set(_activations(local).values()) == {"Clip"}
