"""A task added to a finished bundle: what stays as it is, what is new, and what is refused."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.progress import Progress
from typer.testing import CliRunner

from headwater.compression.bundle import Bundle
from headwater.compression.datasets import Dataset
from headwater.compression.errors import BundleError, DataError, HeadwaterError, SettingsError
from headwater.compression.learning.augmentation import Augmentation
from headwater.compression.manifest import Task
from headwater.server.registry import Registry
from headwater.server.training import add_task as adding
from headwater.server.training import pipeline
from headwater.server.training.cli import app
from headwater.server.training.frozen import FrozenCodec
from headwater.server.training.measure import Bench
from headwater.server.training.metrics import score
from tests.server.training.textures import LIGHT, RECIPE, TEXTURE, textures


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that knows textures only, from a time at which nobody had looked at the light."""
    folder = tmp_path_factory.mktemp("old")
    items = [dataclasses.replace(item, labels={"texture": item.labels["texture"]}) for item in textures().items]
    dataset = dataclasses.replace(textures(), tasks=(TEXTURE,), items=tuple(items))
    prepared = pipeline.prepare(dataset, RECIPE)
    with Progress(disable=True) as progress:
        built, run = pipeline.train(prepared, RECIPE, folder / "work", progress)
    return pipeline.publish(built, run, prepared, folder / "old.zip")


@pytest.fixture(scope="module")
def added(old: Bundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The same with the light, by the command; its path and what the command said."""
    folder = tmp_path_factory.mktemp("new")
    old.save(folder / "old.zip")
    words = ["textures", "--add-task", "light", "--bundle", str(folder / "old.zip"), "--out", str(folder / "new.zip")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "open_dataset", lambda _: textures())
        result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return folder / "new.zip", result.output


def test_all_but_the_new_tail_is_the_old_bundle_s(old: Bundle, added: tuple[Path, str]) -> None:
    new = Bundle.load(added[0])
    assert set(new.manifest.files) == set(old.manifest.files) | {"tail_light.onnx"}
    changed = {name for name in old.manifest.files if new.read(name) != old.read(name)}
    assert changed == {"golden.safetensors", "MODEL_CARD.md"}
    assert new.manifest.parent == old.id.hex()
    assert new.manifest.answers_for == (old.id.hex(),)
    assert new.manifest.tasks == (*old.manifest.tasks, LIGHT)
    before, after = old.arrays("golden.safetensors"), new.arrays("golden.safetensors")
    assert set(after) == set(before) | {"logits_light"}
    for was, now in zip(old.manifest.modes, new.manifest.modes, strict=True):
        assert now.accuracy["texture"] == was.accuracy["texture"]
        assert now.mean_bytes == was.mean_bytes
        assert {cut.groups: cut.accuracy["texture"] for cut in now.cuts} == {
            cut.groups: cut.accuracy["texture"] for cut in was.cuts
        }
        assert all(set(cut.accuracy) == {"texture", "light"} for cut in now.cuts)


def test_its_figures_are_those_of_the_held_out_images_of_the_old_split(old: Bundle, added: tuple[Path, str]) -> None:
    new = Bundle.load(added[0])
    held_out = pipeline.prepare_tasks("textures", textures(), RECIPE, (LIGHT,), ["texture"]).test
    bench = Bench(new, held_out.images.numpy())
    for mode in new.manifest.modes:
        found = score(bench.run(mode).logits["light"], held_out.labels["light"].numpy())
        assert found.accuracy == pytest.approx(mode.accuracy["light"], abs=1e-5)
    # Dark and bright are far apart; an untrained tail would be right half the time.
    assert max(mode.accuracy["light"] for mode in new.manifest.modes) >= 0.8
    assert new.manifest.data == old.manifest.data


def test_the_command_says_what_it_made(added: tuple[Path, str]) -> None:
    path, output = added
    new = Bundle.load(path)
    assert "light: best mode" in output
    assert "tasks: light" in output
    card = new.read("MODEL_CARD.md").decode()
    assert "adding `light`" in card
    assert f"also answers frames of {new.manifest.answers_for[0][:10]}" in card
    page = (path.parent / "new-report.html").read_text(encoding="utf-8")
    assert "Bytes and accuracy: light" in page
    assert "tail light" in page


def test_a_server_answers_both_with_it(old: Bundle, added: tuple[Path, str]) -> None:
    new = Bundle.load(added[0])
    registry = Registry([old, new])
    for bundle in (old, new):
        served = registry.find(bundle.id)
        assert served is not None
        assert [task.name for task in served.tasks] == ["texture", "light"]


def test_a_tail_learns_from_frames_of_pictures_that_are_mirrored_at_most(
    old: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much a teacher's are moved and brightened: what a short frame holds of a task does not outlive that."""
    seen: list[torch.Tensor] = []
    coded = FrozenCodec.random_features

    def noting(codec: FrozenCodec, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        seen.append(images)
        return coded(codec, images, generator)

    monkeypatch.setattr(FrozenCodec, "random_features", noting)
    strong = Augmentation(flip_vertical=True, shift=0.3, scale=0.3, rotate_degrees=30.0, brightness=0.5)
    recipe = dataclasses.replace(adding.recipe_of(old), teacher_epochs=1, task_epochs=1, augmentation=strong)
    prepared = adding.prepare(textures(), old, "light")
    with Progress(disable=True) as progress:
        adding.add_task(prepared, old, recipe, tmp_path / "work", progress)
    given = prepared.train.images
    views = {view.numpy().tobytes() for dims in ([], [2], [3], [2, 3]) for view in given.flip(dims)}
    assert {image.numpy().tobytes() for images in seen for image in images} <= views
    assert len(seen) > 2


def test_a_picture_is_added_to_what_was_added_and_a_finished_run_is_not_run_again(
    old: Bundle, added: tuple[Path, str], tmp_path: Path
) -> None:
    base = Bundle.load(added[0])
    recipe = dataclasses.replace(adding.recipe_of(base), task_epochs=4)
    prepared = adding.prepare(textures(), base, "reconstruct")
    tails = []
    for _ in range(2):
        with Progress(disable=True) as progress:
            built, run = adding.add_task(prepared, base, recipe, tmp_path / "work", progress)
        assert [entry["epoch"] for entry in run.history] == [1, 2, 3, 4]
        new = pipeline.publish(built, run, prepared, tmp_path / "new")
        tails.append(new.read("tail_reconstruct.onnx"))
    assert tails[0] == tails[1]
    assert new.manifest.answers_for == (base.id.hex(), old.id.hex())
    images = prepared.test.images.numpy()
    errors = np.square(images.astype(np.float64) - images.mean(axis=(1, 2, 3), keepdims=True)).mean(axis=(1, 2, 3))
    grey_db = float((10 * np.log10(255**2 / errors)).mean())
    assert min(mode.psnr_db["reconstruct"] for mode in new.manifest.modes) > 6
    assert max(mode.psnr_db["reconstruct"] for mode in new.manifest.modes) > grey_db - 3
    assert all("reconstruct" not in mode.accuracy for mode in new.manifest.modes)
    page = (tmp_path / "new-report.html").read_text(encoding="utf-8")
    assert "reconstruct PSNR dB" in page
    shown = re.findall(r'<td><img alt="([^"]+)" src="data:image/png;base64,([^"]+)">', page)
    assert [alt for alt, _ in shown[:3]] == [
        "original",
        *(f"gain {m.gain}, {m.mean_bytes:.0f} B" for m in new.manifest.modes[-2:]),
    ]
    original = prepared.spec.apply(Image.open(io.BytesIO(base64.b64decode(shown[0][1]))))
    np.testing.assert_array_equal(original, images[0])
    assert "a picture for people" in new.read("MODEL_CARD.md").decode()


def test_a_task_that_cannot_be_added_is_refused(old: Bundle, tiny_bundle: Bundle) -> None:
    other = dataclasses.replace(textures(), name="others")
    renamed = tuple(dataclasses.replace(item, name=f"x{item.name}") for item in textures().items)
    others = dataclasses.replace(textures(), items=renamed)
    taken = dataclasses.replace(textures(), tasks=(TEXTURE, Task("reconstruct", ("a", "b"))))
    cases: list[tuple[Dataset, Bundle, str, type[HeadwaterError], str]] = [
        (textures(), old, "texture", DataError, "has a task 'texture' already; it has texture"),
        (
            textures(),
            old,
            "lights",
            DataError,
            "has no task 'lights'; it has texture, light, reconstruct; did you mean 'l",
        ),
        (other, old, "light", DataError, "was trained on textures, not on others"),
        (textures(80), old, "light", DataError, "train_images of textures is 60 now and was 48"),
        (taken, old, "reconstruct", DataError, "which gives a picture; give it another name"),
        (others, old, "light", DataError, "split of textures is .* now and was"),
        (dataclasses.replace(textures(), name="tiny"), tiny_bundle, "light", DataError, "was trained on None"),
    ]
    for dataset, bundle, name, error, message in cases:
        with pytest.raises(error, match=message):
            adding.prepare(dataset, bundle, name)
    with pytest.raises(BundleError, match=r"tiny .* cannot take another task: it names no recipe"):
        adding.recipe_of(tiny_bundle)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--add-task", "light"], "belong together"),
        (["--bundle", "OLD"], "belong together"),
        (["--add-task", "light", "--bundle", "OLD", "--side", "64"], "side is 64, but the bundle was trained with 32"),
        (["--add-task", "light", "--bundle", "OLD", "--seed", "1"], "seed is 1, but"),
        (["--add-task", "light", "--bundle", "OLD", "--set", "cut=5"], "cut is 5, but"),
        (["--add-task", "light", "--bundle", "OLD", "--set", "mix=0.9"], "mix is 0.9, but"),
    ],
)
def test_settings_that_are_the_head_s_are_refused(words: list[str], message: str, old: Bundle, tmp_path: Path) -> None:
    old.save(tmp_path / "old.zip")
    words = [str(tmp_path / "old.zip") if word == "OLD" else word for word in words]
    with pytest.raises(SettingsError, match=message):
        CliRunner().invoke(app, ["digits", "--out", str(tmp_path / "new"), *words], catch_exceptions=False)
