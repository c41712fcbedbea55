"""From a trained bundle, through what rounds have learnt, to a bundle that may be published: with all that one has."""

from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from headwater.compression.bundle import Bundle
from headwater.compression.errors import RolloutError
from headwater.compression.learning.arrays import arrays_of, version_of
from headwater.compression.learning.reading import network_of
from headwater.device.exit import LocalExit
from headwater.device.head import FrameMaker
from headwater.device.rollout import golden
from headwater.server.federation.versions import Learnt
from headwater.server.rollout import build
from headwater.server.rollout.gate import Bounds, check
from headwater.server.rollout.versions import Versions
from headwater.server.training import pipeline
from tests.server.training.textures import RECIPE, textures
from tests.versions import signed

pytestmark = pytest.mark.slow

LATER = "2099-01-01T00:00:00+00:00"


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Trained for an epoch or two, with a local exit."""
    folder = tmp_path_factory.mktemp("parent")
    prepared = pipeline.prepare(textures(), RECIPE)
    with Progress(disable=True) as progress:
        built, run = pipeline.train(prepared, RECIPE, folder / "work", progress)
    return pipeline.publish(built, run, prepared, folder / "parent.zip")


@pytest.fixture
def state(parent: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A server's folder in which rounds have moved every array a little."""
    rng = np.random.default_rng(0)
    moved = {
        name: (array + 1e-3 * array.std() * rng.normal(size=array.shape)).astype(np.float32)
        for name, array in arrays_of(network_of(parent)).items()
    }
    learnt = Learnt(version_of(moved), moved, parent.id, 1, 3, finished=True)
    monkeypatch.setattr(build, "latest", lambda _: learnt)
    with Versions(tmp_path) as versions:
        versions.add(parent)
    return tmp_path


def test_a_bundle_of_rounds(parent: Bundle, state: Path) -> None:
    made = build.of_rounds(state, textures(), created=LATER).bundle
    assert made.id == build.of_rounds(state, textures(), created=LATER, parent=parent).bundle.id
    assert made.manifest.exit == parent.manifest.exit
    assert made.manifest.data["split"] == parent.manifest.data["split"]
    passed = check(made.manifest, parent.manifest, Bounds(15.0, 25.0))
    assert passed.mean > -5
    maker = FrameMaker(signed(made), 1, LocalExit(made))
    golden.check(made, maker)
    # One for each view of an image that is unlike all others to four digits; in one of the two a pair may be alike.
    assert len(made.exits.opinions) == pytest.approx(len(parent.exits.opinions), abs=2)
    assert len(made.exits.opinions) > 48


def test_images_that_are_not_the_parent_s(parent: Bundle, state: Path) -> None:
    with pytest.raises(RolloutError, match="measure it on the same images"):
        build.of_rounds(state, textures(48), created=LATER)
    other = signed(parent.with_file("MODEL_CARD.md", b"another"))
    with pytest.raises(RolloutError, match="which is not here"):
        build.of_rounds(state, textures(), created=LATER, parent=other)
