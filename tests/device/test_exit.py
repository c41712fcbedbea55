"""The local exit against onnxruntime and the oracle of the small bundle."""

import dataclasses
import logging

import numpy as np
import onnx
import pytest
from PIL import Image

from headwater.compression.bundle import Bundle
from headwater.compression.errors import BundleError, SettingsError
from headwater.compression.exits import ExitScore, score_of
from headwater.device.exit import LocalExit
from headwater.device.head import FrameMaker, Head
from headwater.device.settings import DeviceSettings
from headwater.simulations.shipped import shipped_bundle
from tests import tiny


def without_exit(bundle: Bundle) -> Bundle:
    files = {name: bundle.read(name) for name in bundle.manifest.files if not name.startswith("exit.")}
    return Bundle.build(dataclasses.replace(bundle.manifest, exit=None), files)


@pytest.mark.parametrize("score", ["softmax", "energy"])
def test_answers_where_the_score_reaches_the_threshold_of_its_mode(tiny_bundle: Bundle, score: ExitScore) -> None:
    head, local = Head(tiny_bundle), LocalExit(tiny_bundle, 2.0, score)
    assert len(set(local.thresholds)) > 4
    answered = []
    for mode in tiny_bundle.manifest.modes:
        for seed in range(12):
            logits = tiny.exit_logits(tiny_bundle, seed, mode.index)
            judged = local.judge(head.latent(tiny.image(seed), mode.width), mode.index)
            assert judged.confidence == score_of(logits, score)
            assert judged.sure is bool(score_of(logits, score) >= local.thresholds[mode.index])
            shares = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum()
            result = judged.results["shape"]
            assert result.label == ("left", "middle", "right")[int(logits.argmax())]
            assert list(result.scores.values()) == pytest.approx(shares)
            if judged.sure:
                answered.append(seed)
    assert 0 < len(answered) < 12 * 16


def test_a_width_is_told_apart(tiny_bundle: Bundle) -> None:
    local = LocalExit(tiny_bundle, 1.0)
    latent = Head(tiny_bundle).latent(tiny.image(1), 1.0)
    narrow, wide = local.logits(latent, 0), local.logits(latent, 3)
    np.testing.assert_allclose(narrow * 0.8, wide * 1.1, rtol=1e-5)


def test_what_a_narrow_latent_lacks_is_not_what_the_one_before_had(tiny_bundle: Bundle) -> None:
    head, local = Head(tiny_bundle), LocalExit(tiny_bundle, 1.0)
    narrow = head.latent(tiny.image(1), 0.25)
    before = local.logits(narrow, 0)
    local.logits(np.full((6, 8, 8), 1e3, np.float32), 3)
    np.testing.assert_array_equal(local.logits(narrow, 0), before)


def test_judging_changes_nothing_about_the_frame(tiny_bundle: Bundle) -> None:
    usual, maker = FrameMaker(tiny_bundle), FrameMaker(tiny_bundle, 1, LocalExit(tiny_bundle, 2.0))
    for seed in range(12):
        picture = Image.fromarray(tiny.image(seed)[0])
        coded, frame = maker.make(picture, 13), usual.make(picture, 13)
        assert frame.seen.judged is None
        assert coded.seen.judged is not None
        assert coded.data == frame.data


def test_its_opinion_goes_with_the_frame_and_costs_a_byte(tiny_bundle: Bundle) -> None:
    bundle = tiny.opinionated()
    usual, maker = FrameMaker(tiny_bundle), FrameMaker(bundle, 1, LocalExit.of(bundle, DeviceSettings()))
    assert maker.local_exit is None, "it may not answer: two tasks are asked for"
    said = set()
    for seed in range(12):
        picture = Image.fromarray(tiny.image(seed)[0])
        coded = maker.make(picture, 13)
        logits = tiny.exit_logits(bundle, seed, 13)
        assert coded.seen.judged is None
        assert coded.frame.opinion == bundle.exits.opinion(logits, 3)
        assert len(coded.data) == len(usual.make(picture, 13).data) + 1
        assert bundle.frames().unpack(coded.data) == coded.frame
        said.add(coded.frame.opinion)
    assert len(said) > 1


def test_it_has_an_opinion_on_its_own_task_only() -> None:
    bundle = tiny.opinionated()
    assert LocalExit.of(bundle, DeviceSettings(tasks=("bright",))) is None
    for settings in (DeviceSettings(), DeviceSettings(tasks=("shape",)), DeviceSettings(deadline_ms=300)):
        local = LocalExit.of(bundle, settings)
        assert local is not None
        assert not local.answers
    local = LocalExit.of(bundle, DeviceSettings(tasks=("shape",), deadline_ms=300))
    assert local is not None
    assert local.answers


def test_it_is_there_where_it_answers_what_is_asked_and_sure_only_with_max_drop(tiny_bundle: Bundle) -> None:
    assert LocalExit.of(tiny_bundle, DeviceSettings(deadline_ms=300)) is None
    assert LocalExit.of(without_exit(tiny_bundle), DeviceSettings(tasks=("shape",), deadline_ms=300)) is None
    assert LocalExit.of(tiny_bundle, DeviceSettings(tasks=("shape",))) is None, "it would have nothing to do"
    never = LocalExit.of(tiny_bundle, DeviceSettings(tasks=("shape",), exit_score="energy", deadline_ms=300))
    local = LocalExit.of(tiny_bundle, DeviceSettings(tasks=("shape",), exit_score="energy", max_drop=2))
    assert never is not None
    assert local is not None
    assert set(never.thresholds) == {np.inf}
    assert local.thresholds[3] == tiny_bundle.exits.threshold_for(3, 2.0, "energy")


@pytest.mark.parametrize("tasks", [(), ("bright",), ("shape", "bright")])
def test_more_tasks_than_the_exit_answers_are_an_error(tiny_bundle: Bundle, tasks: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match=r"answers only shape, and .*bright are asked for.*--tasks shape"):
        LocalExit.of(tiny_bundle, DeviceSettings(max_drop=1, tasks=tasks))


def test_a_bundle_without_exit_is_an_error_that_says_what_to_do(tiny_bundle: Bundle) -> None:
    bare = without_exit(tiny_bundle)
    with pytest.raises(SettingsError, match=r"max_drop is 0\.5, but the bundle tiny has no local exit; leave max_drop"):
        LocalExit.of(bare, DeviceSettings(max_drop=0.5, tasks=("shape",)))
    with pytest.raises(BundleError, match="has no local exit"):
        LocalExit(bare, 0.5)


def test_a_promise_that_cannot_be_kept_sends_everything_and_says_so(
    tiny_bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        local = LocalExit(tiny_bundle, 0.0)
    assert set(local.thresholds) == {np.inf}
    assert "the local exit answers no frame: max_drop is 0 points" in caplog.text
    assert "10000 images can promise is 0.12" in caplog.text


def test_a_graph_that_does_not_fit_is_refused_on_loading(tiny_bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="cannot load a graph"):
        LocalExit(tiny_bundle.with_file("exit.onnx", b"no graph"), 1.0)
    with pytest.raises(BundleError, match=r"exit\.onnx does not run at width 0"):
        LocalExit(tiny_bundle.with_file("exit.onnx", tiny_bundle.read("decoder.onnx")), 1.0)


def test_weights_that_are_not_finite_or_labels_too_many_are_refused(tiny_bundle: Bundle) -> None:
    graph = onnx.load_from_string(tiny_bundle.read("exit.onnx"))
    columns = next(weight for weight in graph.graph.initializer if weight.name == "columns")
    values = onnx.numpy_helper.to_array(columns)
    columns.CopyFrom(onnx.numpy_helper.from_array(np.full_like(values, np.nan), "columns"))
    with pytest.raises(BundleError, match="want 3 finite numbers"):
        LocalExit(tiny_bundle.with_file("exit.onnx", graph.SerializeToString()), 1.0)
    columns.CopyFrom(onnx.numpy_helper.from_array(values[:, :2].copy(), "columns"))
    graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 2
    with pytest.raises(BundleError, match=r"logits of shape \(2,\); want 3"):
        LocalExit(tiny_bundle.with_file("exit.onnx", graph.SerializeToString()), 1.0)


def test_its_accuracy_is_that_of_answering_everything(tiny_bundle: Bundle) -> None:
    accuracy = LocalExit(tiny_bundle).accuracy
    assert list(accuracy) == [0.25, 0.5, 0.75, 1.0]
    for mode in tiny_bundle.manifest.modes:  # the losses of the small bundle are 4 points and a quarter a mode
        assert mode.accuracy["shape"] - (4 + mode.index / 4) / 100 == pytest.approx(accuracy[mode.width], abs=0.01)


def test_without_leave_to_answer_it_counts_for_less_than_any_mode(tiny_bundle: Bundle) -> None:
    worst = min(mode.accuracy["shape"] for mode in tiny_bundle.manifest.modes)
    assert max(LocalExit(tiny_bundle).counts_as.values()) < worst
    allowed = LocalExit(tiny_bundle, max_drop=0.5)
    assert allowed.counts_as == allowed.accuracy


def test_its_accuracy_in_a_bundle_that_was_trained() -> None:
    bundle = Bundle.load(shipped_bundle())
    measured = bundle.manifest.measured["local_exit"]["accuracy"]
    assert list(LocalExit(bundle).accuracy.values()) == pytest.approx(measured, abs=1e-4)
