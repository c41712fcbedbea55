"""The exit's graph against its module, its stage on a student of its own, and what a bundle gets of it."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from rich.progress import Progress

from headwater.compression.bundle import Bundle, to_safetensors
from headwater.compression.exits import ExitTables, joined
from headwater.compression.image import InputSpec
from headwater.compression.learning.exit_net import ExitNet
from headwater.compression.learning.samples import Samples
from headwater.compression.manifest import Task
from headwater.server.training import exits
from headwater.server.training.build import Built, build
from headwater.server.training.card import _exit
from headwater.server.training.graphs import exit_graph
from headwater.server.training.lite import Lite0
from headwater.server.training.loop import Run
from headwater.server.training.measure import Bench
from headwater.server.training.recipe import Recipe
from headwater.server.training.report_exit import exit_section
from headwater.server.training.student import Student

WIDTHS = (0.25, 1.0)
RECIPE = Recipe(
    colour="L", side=32, cut=3, skip=(), widths=WIDTHS, start_gains=(1.0, 4.0), rate_weights=(1e-4, 1e-5),
    latent_channels=6, groups=3, batch=16, exit_epochs=20,
)  # fmt: skip


def samples(count: int, seed: int) -> Samples:
    """Stripes across or along, in noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    pixels = rng.normal(100, 25, (count, 1, 32, 32))
    for image, label in zip(pixels, labels, strict=True):
        lines = image[0] if label else image[0].T
        lines[::4] += 90
    images = torch.from_numpy(pixels.clip(0, 255).astype(np.uint8))
    return Samples(images, {"stripes": torch.from_numpy(labels)})


@pytest.fixture(scope="module")
def student() -> Student:
    torch.manual_seed(0)
    return Student(Lite0(1, [2], RECIPE.cut), RECIPE).eval()


def fit(folder: Path, student: Student) -> tuple[ExitNet, Run]:
    run = Run(folder, RECIPE, "stripes")
    with Progress(disable=True) as progress:
        model = exits.fit_exit(run, student, samples(64, 0), torch.ones(2), progress)
    assert model is not None
    return model, run


@pytest.fixture(scope="module")
def fitted(student: Student, tmp_path_factory: pytest.TempPathFactory) -> tuple[ExitNet, Run]:
    return fit(tmp_path_factory.mktemp("run"), student)


@pytest.fixture(scope="module")
def built(student: Student, fitted: tuple[ExitNet, Run]) -> Built:
    tasks = (Task("stripes", ("along", "across")),)
    data = {"name": "stripes", "train_images": 64, "test_images": 60, "licence": "none"}
    teacher = Lite0(1, [2], RECIPE.cut).eval()
    finished = copy.deepcopy(student)
    finished.exit = fitted[0]
    spec = InputSpec("L", 32, 32)
    return build(finished, teacher, samples(64, 0), samples(60, 1), name="s", spec=spec, tasks=tasks, data=data)


@pytest.mark.parametrize(("side", "channels"), [(2, 6), (8, 24), (14, 24), (15, 3)])
def test_the_graph_is_the_module(side: int, channels: int) -> None:
    torch.manual_seed(side)
    model = ExitNet.make(channels, side, 3, WIDTHS)
    for width in WIDTHS:  # statistics of their own for each width
        model(torch.randn(8, channels, side, side) * (2 - width) + width, width)
    model.eval()
    temperature = np.array([0.5, 2.0], np.float32)
    data, plan = exit_graph(model, temperature)
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    latent = torch.randn(1, channels, side, side)
    for index, width in enumerate(WIDTHS):
        (logits,) = session.run(None, {"latent": latent.numpy(), "width": np.array([index])})
        with torch.no_grad():
            wanted = model(latent, width).numpy() / temperature[index]
        np.testing.assert_allclose(logits, wanted, rtol=1e-3, atol=1e-4)
    assert 0 < plan.macs < 1_500_000


def test_it_learns_what_the_latent_shows(student: Student, fitted: tuple[ExitNet, Run]) -> None:
    model, run = fitted
    unseen = samples(100, 7)
    with torch.no_grad():
        for width in WIDTHS:
            logits = model(student.head(exits.normalise(unseen.images), width), width)
            assert (logits.argmax(dim=1) == unseen.labels["stripes"]).float().mean() > 0.9
    stages = {entry["stage"] for entry in run.history}
    assert stages == {"exit"}
    assert len(run.history) == RECIPE.exit_epochs


def test_the_student_stays_as_it_was(student: Student, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in student.state_dict().items()}
    fit(tmp_path, student)
    for name, value in student.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_an_interrupted_run_ends_where_a_whole_one_does(
    student: Student, fitted: tuple[ExitNet, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls = fitted[0], 0
    save = Run._save

    def killed(self: Run, stage: object, epochs: int) -> None:
        save(self, stage, epochs)  # type: ignore[arg-type]
        if epochs == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_save", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path, student)
    again, _ = fit(tmp_path, student)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value)
    views = exits._views

    def counted(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        return views(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(exits, "_views", counted)
    fit(tmp_path, student)
    assert calls == 0, "a stage that is over needs no views"


def test_no_epochs_no_exit(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, exit_epochs=0)
    student = Student(Lite0(1, [2], recipe.cut), recipe)
    with Progress(disable=True) as progress:
        assert exits.fit_exit(Run(tmp_path, RECIPE, "x"), student, samples(8, 0), torch.ones(2), progress) is None


def test_a_bundle_gets_the_exit_with_its_calibration(built: Built, fitted: tuple[ExitNet, Run]) -> None:
    bundle, unseen = built.bundle, samples(60, 1)
    manifest = bundle.manifest
    assert manifest.exit is not None
    plan = exit_graph(fitted[0], np.ones(2, np.float32))[1]
    assert (manifest.exit.task, manifest.exit.macs) == ("stripes", plan.macs)
    assert manifest.measured["bundle_bytes"] == sum(entry.size for entry in manifest.files.values())
    assert bundle.exits.images.tolist() == [60]
    session = ort.InferenceSession(bundle.read("exit.onnx"), providers=["CPUExecutionProvider"])
    bench = Bench(bundle, unseen.images.numpy())
    labels = unseen.labels["stripes"].numpy()
    for mode, run in zip(manifest.modes, built.runs, strict=True):
        width = manifest.widths.index(mode.width)
        feeds = [{"latent": one[np.newaxis], "width": np.array([width])} for one in bench.latents(mode.width)]
        logits = np.concatenate([session.run(None, feed)[0] for feed in feeds])
        lost = (run.logits["stripes"].argmax(axis=1) == labels).astype(float) - (logits.argmax(axis=1) == labels)
        assert bundle.exits.drop[0, mode.index, 0] == pytest.approx(100 * lost.mean(), abs=1e-4)


def test_another_load_of_the_bundle_is_whole(built: Built, tmp_path: Path) -> None:
    assert Bundle.load(built.bundle.save(tmp_path / "b.zip")).exits.widths == 2


def test_report_and_card_say_what_a_stated_drop_gives(built: Built) -> None:
    manifest = built.bundle.manifest
    section = exit_section(manifest)
    assert section.count("<tr>") == 2 + len(WIDTHS) * 2 * 3 + len(WIDTHS)
    row = manifest.measured["local_exit"]["cascades"][0]
    measured = (f"{row['share']:.1%}", f"{row['bytes_saved']:.1%}", f"{row['drop']:.2f}")
    for cell in ("0.25", "softmax", "0.5 points", *measured):
        assert f"<td>{cell}</td>" in section
    assert "`--max-drop 1` answers" in _exit(manifest)


def test_a_bundle_without_exit_has_no_section(tiny_bundle: Bundle) -> None:
    from dataclasses import replace

    assert exit_section(replace(tiny_bundle.manifest, exit=None)) == ""


def test_modes_are_measured_with_the_device_s_opinion(built: Built) -> None:
    bundle, images = built.bundle, samples(60, 1).images.numpy()
    silent = dataclasses.replace(bundle.exits, opinions=np.zeros((0, 2), np.float32))
    mute = Bench(bundle.with_file(ExitTables.FILE, to_safetensors(silent.arrays())), images)
    told = Bench(bundle, images)
    for mode in bundle.manifest.modes:
        said = bundle.exits.opinions[told.opinions(mode.width)]
        tail, both = mute.run(mode), told.run(mode)
        np.testing.assert_allclose(both.logits["stripes"], joined(tail.logits["stripes"], said), atol=1e-5)
        np.testing.assert_array_equal(both.sizes, tail.sizes + 1)
        np.testing.assert_array_equal(both.logits["stripes"], built.runs[mode.index].logits["stripes"])
    assert mute.opinions(1.0) == []
