"""The whole model on the device, against onnxruntime alone."""

import dataclasses

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from PIL import Image

from headwater.compression.bundle import Bundle
from headwater.compression.errors import BundleError, SettingsError
from headwater.device import whole
from headwater.device.settings import DeviceSettings
from headwater.device.whole import FIRST_RUNS, MEMORY, WHOLE, WholeModel
from tests import tiny

ASKED = DeviceSettings(whole_model=True, tasks=("shape",))


def test_answers_as_the_unsplit_network_does(tiny_bundle: Bundle) -> None:
    model, session = WholeModel(tiny_bundle), ort.InferenceSession(tiny_bundle.read(WHOLE))
    for seed in range(6):
        pixels = tiny.image(seed)
        logits = session.run(["logits"], {"image": pixels[np.newaxis]})[0][0].astype(float)
        answered = model.answer(Image.fromarray(pixels[0]))
        result = answered.results["shape"]
        assert result.label == tiny.TASKS[0].labels[int(logits.argmax())]
        assert list(result.scores.values()) == pytest.approx(np.exp(logits) / np.exp(logits).sum())
        assert min(answered.prepare_ms, answered.whole_ms) > 0


def test_its_time_is_measured_at_the_start_and_with_each_picture(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s, run_s = 0.0, 1.0

    def clock() -> float:
        nonlocal now_s
        now_s += run_s / 2  # it is read three times a run
        return now_s

    monkeypatch.setattr(whole.time, "perf_counter", clock)
    model = WholeModel(tiny_bundle)
    assert (model.slow_ms, len(model._times_ms)) == (1000.0, FIRST_RUNS)
    run_s = 3.0
    model.answer(Image.new("L", (8, 8)))
    assert model.slow_ms == 3000.0
    run_s = 2.0
    for _ in range(MEMORY):
        model.answer(Image.new("L", (8, 8)))
    assert model.slow_ms == 2000.0


def test_it_is_loaded_only_where_it_is_asked_for(tiny_bundle: Bundle) -> None:
    assert WholeModel.of(tiny_bundle, DeviceSettings(tasks=("shape",))) is None
    assert WholeModel.of(tiny_bundle, ASKED) is not None


def test_where_it_cannot_be_had_the_error_says_what_to_do(tiny_bundle: Bundle) -> None:
    files = {name: tiny_bundle.read(name) for name in tiny_bundle.manifest.files if name != WHOLE}
    with pytest.raises(SettingsError, match=r"bundle tiny has no local\.onnx; leave --whole-model out, or build"):
        WholeModel.of(Bundle.build(tiny_bundle.manifest, files), ASKED)
    for tasks in ((), ("bright",), ("shape", "bright")):
        with pytest.raises(SettingsError, match=r"answers only shape, and .*bright are asked for; .*--tasks shape"):
            WholeModel.of(tiny_bundle, DeviceSettings(whole_model=True, tasks=tasks))


def test_a_graph_that_does_not_fit_is_refused_on_loading(tiny_bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"local\.onnx does not run"):
        WholeModel(tiny_bundle.with_file(WHOLE, tiny_bundle.read("decoder.onnx")))
    graph = onnx.load_from_string(tiny_bundle.read(WHOLE))
    tail = next(weight for weight in graph.graph.initializer if weight.name == "tail")
    values = onnx.numpy_helper.to_array(tail)
    tail.CopyFrom(onnx.numpy_helper.from_array(np.full_like(values, np.nan), "tail"))
    with pytest.raises(BundleError, match="gives scores that are no numbers"):
        WholeModel(tiny_bundle.with_file(WHOLE, graph.SerializeToString()))


def test_its_accuracy_is_the_measured_one_or_that_of_the_best_mode(tiny_bundle: Bundle) -> None:
    assert WholeModel(tiny_bundle).accuracy == tiny_bundle.manifest.modes[-1].accuracy["shape"]
    measured = dataclasses.replace(tiny_bundle.manifest, measured={"local": {"shape": {"accuracy": 0.5}}})
    files = {name: tiny_bundle.read(name) for name in tiny_bundle.manifest.files}
    assert WholeModel(Bundle.build(measured, files)).accuracy == 0.5
