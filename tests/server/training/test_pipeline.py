"""The whole way from images to a bundle, on data that a user could bring."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.progress import Progress
from typer.testing import CliRunner

from headwater.compression.bundle import Bundle
from headwater.compression.errors import DataError, SettingsError
from headwater.server.training.cli import app
from headwater.server.training.measure import Bench
from headwater.server.training.metrics import score
from headwater.server.training.pipeline import prepare, publish, train
from headwater.server.training.recipe import Recipe, recipe_for
from tests.server.training.textures import RECIPE, textures


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stripes against dots, in all kinds of files, one of them broken."""
    root = tmp_path_factory.mktemp("textures")
    rng = np.random.default_rng(0)
    for label in ("dots", "stripes"):
        (root / label).mkdir()
        for n in range(40):
            pixels = rng.integers(0, 60, (40 + n, 50), dtype=np.uint8)
            pixels[:: 4 if label == "stripes" else 1, :: 1 if label == "stripes" else 7] += 150
            mode, suffix = (("L", "png"), ("RGB", "jpg"), ("P", "png"), ("RGBA", "png"))[n % 4]
            Image.fromarray(pixels).convert(mode).save(root / label / f"{n}.{suffix}")
    (root / "dots" / "broken.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    return root


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("out") / "textures"
    arguments = [str(folder), "--out", str(out), "--side", "32", "--colour", "L", "--epochs", "0.2", "--batch", "16"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return out, result.output


def test_train_writes_a_bundle_that_loads_and_answers(trained: tuple[Path, str], folder: Path) -> None:
    out, _ = trained
    bundle = Bundle.load(out)
    manifest = bundle.manifest
    assert manifest.tasks[0].labels == ("dots", "stripes")
    assert [mode.width for mode in manifest.modes][::5] == [0.25, 0.5, 0.75, 1.0]
    prepared = prepare(str(folder), Recipe(colour="L", side=32))
    best = manifest.modes[-1]
    run = Bench(bundle, prepared.test.images.numpy()).run(best)
    labels = prepared.test.labels["class"].numpy()
    assert score(run.logits["class"], labels).accuracy == pytest.approx(best.accuracy["class"], abs=1e-5)
    assert run.sizes.mean() == pytest.approx(best.mean_bytes, abs=0.01)
    assert [cut.groups for cut in best.cuts] == [1, 2, 3]
    cut = Bench(bundle, prepared.test.images.numpy()).run(best, groups=2)
    assert score(cut.logits["class"], labels).accuracy == pytest.approx(best.cuts[1].accuracy["class"], abs=1e-5)
    assert cut.sizes.mean() == pytest.approx(best.cuts[1].mean_bytes, abs=0.01)


def test_the_local_exit_is_trained_along_and_calibrated_on_the_held_out_images(trained: tuple[Path, str]) -> None:
    out, output = trained
    bundle = Bundle.load(out)
    assert bundle.manifest.exit is not None
    assert bundle.manifest.exit.task == "class"
    assert bundle.exits.images.tolist() == [bundle.manifest.data["test_images"]]
    assert "exit" in output
    page = (out.parent / "textures-report.html").read_text(encoding="utf-8")
    assert "Answered on the device: class" in page
    assert "`--max-drop 1`" in (out / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_broken_files_are_reported_and_counted(trained: tuple[Path, str]) -> None:
    out, output = trained
    assert "broken.jpg" in output
    assert "1 files skipped" in " ".join(output.split())
    assert Bundle.load(out).manifest.data["skipped_files"] == 1


def test_report_and_card_are_written_and_stand_alone(trained: tuple[Path, str]) -> None:
    out, _ = trained
    page = (out.parent / "textures-report.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "Cut frames: class" in page
    assert 'src="http' not in page
    assert "Model card: textures" in (out / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_every_gain_of_a_width_costs_more_than_the_one_below(trained: tuple[Path, str]) -> None:
    modes = Bundle.load(trained[0]).manifest.modes
    for width in (0.25, 1.0):
        sizes = [mode.mean_bytes for mode in modes if mode.width == width]
        assert sizes[0] < sizes[-1]


def test_unknown_tasks_are_named() -> None:
    with pytest.raises(DataError, match="has no task 'colour'; it has defect, cell_type, reconstruct"):
        prepare("solar", Recipe(colour="L", side=32, tasks=("colour",)))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"side": 100}, "multiple of 32"),
        ({"widths": (0.5, 0.25)}, "ascending"),
        ({"widths": (0.5, 2.0)}, "at most 1"),
        ({"widths": ()}, "widths"),
        ({"rate_weights": (1.0,)}, "as many of each"),
        ({"groups": 0}, "groups"),
        ({"cut": 0}, "cut"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused(change: dict[str, object], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        Recipe(**change)  # type: ignore[arg-type]


def test_each_group_is_twice_the_one_before_it() -> None:
    assert Recipe(latent_channels=24, groups=4).group_ends == (2, 5, 11, 24)
    assert Recipe(latent_channels=5, groups=5).group_ends == (1, 2, 3, 4, 5)
    assert Recipe(latent_channels=6, groups=4).group_ends[-1] == 6
    assert Recipe(groups=1).group_ends == (24,)
    assert recipe_for("solar").colour == "L"


def test_a_model_of_one_narrow_width_trains(folder: Path, tmp_path: Path) -> None:
    recipe = Recipe(colour="L", side=32, widths=(0.25,), batch=16, teacher_epochs=1, match_epochs=1, tune_epochs=1)
    prepared = prepare(str(folder), recipe)
    with Progress(disable=True) as progress:
        built, _ = train(prepared, recipe, tmp_path / "work", progress)
    assert built.bundle.manifest.widths == (0.25,)
    assert all(len(run.sizes) == len(prepared.test) for run in built.runs)


def test_pictures_are_trained_along_with_labels(tmp_path: Path) -> None:
    tasks = ("reconstruct", "texture")
    recipe = dataclasses.replace(
        RECIPE, tasks=tasks, widths=(1.0,), start_gains=(5.0,), rate_weights=(5e-5,), teacher_epochs=1
    )
    prepared = prepare(textures(32), recipe)
    with Progress(disable=True) as progress:
        built, run = train(prepared, recipe, tmp_path / "work", progress)
    bundle = publish(built, run, prepared, tmp_path / "out")
    assert [task.name for task in bundle.manifest.tasks] == ["texture", "reconstruct"], "the one with labels is first"
    (mode,) = bundle.manifest.modes
    assert set(mode.accuracy) == {"texture"}
    pictures = Bench(bundle, prepared.test.images.numpy()).run(mode).psnr_db["reconstruct"]
    assert pictures.mean() == pytest.approx(mode.psnr_db["reconstruct"], abs=0.01)
    assert all("picture" in entry for entry in run.history if entry["stage"] == "tune")


def test_pictures_alone_make_no_bundle() -> None:
    with pytest.raises(DataError, match="name a task with labels too, such as texture"):
        prepare(textures(), dataclasses.replace(RECIPE, tasks=("reconstruct",)))
