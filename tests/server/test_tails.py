from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from headwater.compression.bundle import Bundle
from headwater.compression.errors import BundleError
from headwater.compression.manifest import Task
from headwater.server.tails import Output, Tails
from tests import tiny


def batch(bundle: Bundle, seeds: range) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Latents and modes of some images, each in a mode of its own."""
    modes = [seed % 16 for seed in seeds]
    latents = np.zeros((len(modes), tiny.CHANNELS, tiny.CELLS, tiny.CELLS), np.float32)
    for row, (seed, mode) in enumerate(zip(seeds, modes, strict=True)):
        symbols = tiny.symbols(bundle, seed, mode)
        latents[row, : len(symbols)] = symbols * bundle.tables.step[mode, : len(symbols), np.newaxis, np.newaxis]
    return latents, np.array(modes, np.int64)


def assert_same(got: dict[str, Output] | None, expected: dict[str, Output] | None) -> None:
    assert got is not None
    assert expected is not None
    assert list(got) == list(expected)
    for task, scores in got.items():
        assert scores == pytest.approx(expected[task], abs=1e-6)


def replaced(bundle: Bundle, **files: bytes) -> Bundle:
    """The bundle with other files (``tail_shape`` for tail_shape.onnx)."""
    kept = {name: bundle.read(name) for name in bundle.manifest.files}
    return Bundle.build(bundle.manifest, kept | {f"{name}.onnx": data for name, data in files.items()})


def poisoned(bundle: Bundle) -> Bundle:
    """The bundle with a decoder that gives NaN for mode 3."""
    graph: Any = onnx.load_from_string(bundle.read("decoder.onnx"))
    (offset,) = [one for one in graph.graph.initializer if one.name == "offset"]
    values = numpy_helper.to_array(offset).copy()
    values[3] = np.nan
    offset.CopyFrom(numpy_helper.from_array(values, "offset"))
    return replaced(bundle, decoder=graph.SerializeToString())


def test_each_row_of_a_batch_is_what_onnxruntime_gives_for_it_alone(tiny_bundle: Bundle) -> None:
    answers = Tails(tiny_bundle).run(*batch(tiny_bundle, range(20)), [0] * 20)
    for seed, answer in enumerate(answers):
        assert answer is not None
        for task, expected in tiny.answer(tiny_bundle, seed, seed % 16).items():
            np.testing.assert_allclose(answer[task], expected, atol=1e-5)


def test_an_opinion_is_joined_with_the_tail_of_its_task() -> None:
    bundle = tiny.opinionated()
    tails, some = Tails(bundle), batch(bundle, range(4))
    alone, told = tails.run(*some, [0] * 4), tails.run(*some, [0, 0, 1, 2], [None, 2, 3, 1])
    assert_same(told[0], alone[0])
    for row, opinion in ((1, 2), (2, 3)):
        got, without = told[row], alone[row]
        assert got is not None
        assert without is not None
        logits = (np.log(without["shape"]) + bundle.exits.opinions[opinion]) / 2
        assert got["shape"] == pytest.approx(np.exp(logits) / np.exp(logits).sum(), abs=1e-5)
    last, before = told[3], alone[3]
    assert last is not None
    assert before is not None
    assert last == {"bright": pytest.approx(before["bright"], abs=1e-6)}, "the opinion is on another task"


def test_only_the_tails_that_are_asked_for_run(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    tails = Tails(tiny_bundle)
    rows: dict[str, list[int]] = {"shape": [], "bright": []}

    class Counted:
        def __init__(self, name: str, session: Any) -> None:  # noqa: ANN401 - stands for a session
            self.name, self.session = name, session

        def run(self, outputs: list[str], feed: dict[str, NDArray[np.float32]]) -> Any:  # noqa: ANN401 - the same
            rows[self.name].append(len(feed["features"]))
            return self.session.run(outputs, feed)

    counted = [Counted(task.name, session) for task, session in zip(tails.tasks, tails._tails, strict=True)]
    monkeypatch.setattr(tails, "_tails", counted)
    latents, modes = batch(tiny_bundle, range(4))
    answers = tails.run(latents, modes, [0b01, 0b11, 0b01, 0])
    assert [sorted(answer or ()) for answer in answers] == [
        ["shape"],
        ["bright", "shape"],
        ["shape"],
        ["bright", "shape"],
    ]
    assert rows == {"shape": [4], "bright": [2]}
    tails.run(latents, modes, [0b01] * 4)
    assert rows == {"shape": [4, 4], "bright": [2]}
    full = tails.run(latents, modes, [0] * 4)
    for some, every in zip(answers, full, strict=True):
        for task, scores in (some or {}).items():
            np.testing.assert_allclose(scores, (every or {})[task], atol=1e-6)


def test_an_image_comes_only_when_it_is_asked_for_by_name() -> None:
    bundle = tiny.later()
    latents, modes = batch(bundle, range(6))
    by_name = 0b1000
    answers = Tails(bundle).run(latents, modes, [0, by_name, 0, by_name | 1, 0, by_name])
    assert [sorted(answer or ()) for answer in answers[:4]] == [
        ["bright", "column", "shape"],
        ["reconstruct"],
        ["bright", "column", "shape"],
        ["reconstruct", "shape"],
    ]
    for seed in (1, 3, 5):
        answer = answers[seed]
        assert answer is not None
        image = np.asarray(answer["reconstruct"])
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, tiny.picture(bundle, seed, seed % 16))


def test_pixels_are_rounded_and_kept_in_their_range() -> None:
    from headwater.server.tails import _pixels

    values = np.array([[[[-9.0, 300.0, 1.5, 2.5, 254.4]]], [[[0, np.nan, 0, 0, 0]]]], np.float32)
    finite, images = _pixels(values)
    assert finite == [True, False]
    assert images[0].tolist() == [[[0, 255, 2, 2, 254]]]


def test_an_image_of_another_size_than_the_input_fails_on_warming_up() -> None:
    bundle = tiny.later()
    graph: Any = onnx.load_from_string(bundle.read("tail_reconstruct.onnx"))
    graph.graph.node[1].attribute[0].i = 2
    del graph.graph.output[0].type.tensor_type.shape.dim[:]
    with pytest.raises(BundleError, match=r"gives image \[1, 4, 16, 16\]; the bundle's input wants \[1, 1, 32, 32\]"):
        Tails(replaced(bundle, tail_reconstruct=graph.SerializeToString())).warm_up(1)


def test_a_frame_whose_scores_are_not_finite_harms_no_other(tiny_bundle: Bundle) -> None:
    latents, modes = batch(tiny_bundle, range(6))
    answers = Tails(poisoned(tiny_bundle)).run(latents, modes, [0] * 6)
    assert [answer is None for answer in answers] == [False, False, False, True, False, False]
    assert_same(answers[4], Tails(tiny_bundle).run(latents, modes, [0] * 6)[4])


def test_scores_are_probabilities_even_for_extreme_logits() -> None:
    from headwater.server.tails import _softmax

    finite, scores = _softmax(np.array([[1e4, -1e4], [0, 0], [np.inf, 0], [np.nan, 0]], np.float32))
    assert finite == [True, True, False, False]
    assert scores[:2] == [[1, 0], [0.5, 0.5]]


@pytest.mark.parametrize("name", ["decoder", "tail_shape"])
def test_a_graph_that_is_none_is_a_bundle_error(tiny_bundle: Bundle, name: str) -> None:
    with pytest.raises(BundleError, match=f"cannot load {name}.onnx of the bundle tiny"):
        Tails(replaced(tiny_bundle, **{name: b"no graph"}))


def test_a_graph_with_other_inputs_is_a_bundle_error(tiny_bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"takes \['features'\] and gives \['logits'\]; want \['latent', 'mode'\]"):
        Tails(replaced(tiny_bundle, decoder=tiny_bundle.read("tail_shape.onnx")))


def test_a_tail_with_another_number_of_labels_fails_on_warming_up(tiny_bundle: Bundle) -> None:
    tasks = (Task("shape", ("left", "right")), tiny_bundle.manifest.tasks[1])
    files = {name: tiny_bundle.read(name) for name in tiny_bundle.manifest.files}
    bundle = Bundle.build(dataclasses.replace(tiny_bundle.manifest, tasks=tasks), files)
    with pytest.raises(BundleError, match=r"logits \[1, 3\]; its labels want \[1, 2\]"):
        Tails(bundle).warm_up(1)


def test_a_graph_that_fails_to_run_fails_on_warming_up(tiny_bundle: Bundle) -> None:
    wrong = [helper.make_tensor_value_info(name, kind, None) for name, kind in (("latent", 1), ("mode", 7))]
    nodes = [
        helper.make_node("Cast", ["mode"], ["as_float"], to=1),
        helper.make_node("MatMul", ["latent", "as_float"], ["features"]),
    ]
    graph = helper.make_graph(nodes, "wrong", wrong, [helper.make_tensor_value_info("features", 1, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with pytest.raises(BundleError, match="fail on a batch of 2"):
        Tails(replaced(tiny_bundle, decoder=model.SerializeToString())).warm_up(2)


def test_one_bundle_runs_in_many_threads_at_a_time(tiny_bundle: Bundle) -> None:
    from concurrent.futures import ThreadPoolExecutor

    tails = Tails(tiny_bundle)
    feeds = [batch(tiny_bundle, range(start, start + 8)) for start in range(8)]
    alone = [tails.run(*feed, [0] * 8) for feed in feeds]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda feed: tails.run(*feed, [0] * 8), feeds * 5))
    for index, answers in enumerate(together):
        for got, expected in zip(answers, alone[index % 8], strict=True):
            assert_same(got, expected)
