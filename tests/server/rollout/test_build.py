"""A bundle built again from its own network and from a changed one: the same bytes for the same arrays."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headwater.compression.errors import LearningError, RolloutError
from headwater.compression.learning.arrays import arrays_of, version_of
from headwater.compression.learning.reading import WEIGHTS, network_of
from headwater.device.head import FrameMaker
from headwater.device.rollout import golden
from headwater.server.rollout.build import images_of, measured_on, rebuild, rebuild_from
from headwater.server.rollout.gate import Bounds, check
from headwater.server.training.build import WHOLE
from tests.compression.learning import small
from tests.rebuildable import IMAGES, TASK, parent, with_recipe

LATER = "2026-01-02T00:00:00+00:00"


def learnt(step: float = 0.01) -> dict[str, np.ndarray]:
    """What rounds might bring: every array a little off."""
    rng = np.random.default_rng(0)
    arrays = arrays_of(network_of(parent()))
    return {name: (a + step * a.std() * rng.normal(size=a.shape)).astype(np.float32) for name, a in arrays.items()}


def test_the_same_arrays_give_the_same_bundle() -> None:
    one, other = (rebuild(parent(), learnt(), IMAGES, created=LATER).bundle for _ in range(2))
    assert one.manifest_bytes == other.manifest_bytes
    assert one.id != rebuild(parent(), learnt(0.02), IMAGES, created=LATER).bundle.id


def test_it_is_the_parent_s_child_with_figures_of_its_own() -> None:
    made = rebuild(parent(), learnt(), IMAGES, created=LATER).bundle
    manifest = made.manifest
    assert (manifest.created, manifest.parent, manifest.answers_for) == (LATER, parent().id.hex(), ())
    assert manifest.data["learnt"] == version_of(learnt())
    assert manifest.data["split"] == "0"
    assert all(mode.mean_bytes > 0 and TASK.name in mode.accuracy and len(mode.cuts) == 2 for mode in manifest.modes)
    assert made.read(WHOLE) == parent().read(WHOLE)
    assert made.read("head_1.onnx") != parent().read("head_1.onnx")
    golden.check(made, FrameMaker(made))
    check(manifest, parent().manifest, Bounds(100.0, 100.0))


def test_a_bundle_carries_what_was_learnt() -> None:
    """What a device reads back is what was put in, but for half precision and 8-bit tails."""
    back = arrays_of(network_of(rebuild(parent(), learnt(), IMAGES, created=LATER).bundle))
    for name, array in learnt().items():
        np.testing.assert_allclose(back[name], array, atol=2e-3 * max(1.0, float(np.abs(array).max())))


def test_a_round_that_changes_nothing_changes_no_weight() -> None:
    """The first building rounds to what is stored; from then on it stays, however often it is done."""
    once = rebuild_from(parent(), network_of(parent()), IMAGES, created=LATER).bundle
    again = rebuild_from(once, network_of(once), IMAGES, created=LATER).bundle
    for name in (WEIGHTS, "tables.safetensors", "decoder.onnx", "head_0.5.onnx", TASK.tail_file):
        assert again.read(name) == once.read(name)
    assert again.manifest.modes == once.manifest.modes


def test_arrays_of_another_network() -> None:
    short = dict(list(learnt().items())[1:])
    with pytest.raises(LearningError, match="missing or unknown"):
        rebuild(parent(), short, IMAGES, created=LATER)


def test_a_worse_network_does_not_pass_the_gate() -> None:
    noise = {name: np.zeros_like(array) for name, array in learnt().items()}
    made = rebuild(parent(), noise, IMAGES, created=LATER).bundle
    was = dataclasses.replace(
        parent().manifest,
        modes=tuple(dataclasses.replace(mode, accuracy={TASK.name: 0.9}) for mode in parent().manifest.modes),
    )
    with pytest.raises(Exception, match="is worse than the one in use"):
        check(made.manifest, was, Bounds(1.0, 1e4))


def test_images_of_the_server_s_own_are_measured_for_both(tmp_path: Path) -> None:
    for place, count in (("", 6), ("test/", 4)):
        for label in TASK.labels:
            folder = tmp_path / place / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = small.images(1, 31 * number + count)[0].numpy()
                Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(
                    folder / f"{number}.png"
                )
    images = images_of(with_recipe(), str(tmp_path))
    assert (len(images.train), len(images.test)) == (18, 12)
    made = rebuild(parent(), learnt(), images, created=LATER).bundle
    assert made.manifest.data["name"] == tmp_path.name
    with pytest.raises(RolloutError, match="are of different images"):
        check(made.manifest, parent().manifest, Bounds(100, 1000))
    again = measured_on(parent(), images)
    check(made.manifest, again, Bounds(100, 1000))
    same = measured_on(made, images)
    assert [mode.accuracy for mode in same.modes] == [mode.accuracy for mode in made.manifest.modes]
