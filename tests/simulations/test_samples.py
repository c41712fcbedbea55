"""The demo's pictures: test pictures only, in one order, with their labels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headwater.compression.datasets import open_dataset, split
from headwater.compression.errors import DataError
from headwater.compression.manifest import Task
from headwater.simulations.samples import take_samples
from tests import tiny

SHAPE = tiny.TASKS[0]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for seed in range(40):
        path = tmp_path / "photos" / SHAPE.labels[tiny.labels(seed)[0]] / f"{seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tiny.image(seed)[0]).save(path)
    return tmp_path / "photos"


def test_only_test_pictures_are_sent_with_their_labels(photos: Path, tmp_path: Path) -> None:
    samples = take_samples(str(photos), SHAPE, 100, tmp_path / "out")
    _, test = split(open_dataset(photos))
    assert {sample.name for sample in samples} == {item.name for item in test.items}
    for sample in samples:
        original = Image.open(photos / sample.name)
        assert sample.label == Path(sample.name).parts[0]
        assert np.array_equal(np.asarray(sample.load()), np.asarray(original))


def test_files_are_in_the_order_of_their_names(photos: Path, tmp_path: Path) -> None:
    samples = take_samples(str(photos), SHAPE, 5, tmp_path / "out")
    assert sorted((tmp_path / "out").iterdir()) == [sample.path for sample in samples]
    assert [sample.index for sample in samples] == list(range(5))


def test_the_order_is_the_seed_s(photos: Path, tmp_path: Path) -> None:
    def names(count: int, seed: int) -> list[str]:
        return [sample.name for sample in take_samples(str(photos), SHAPE, count, tmp_path / "out", seed)]

    assert names(10, 0) == names(10, 0)
    assert names(4, 0) == names(10, 0)[:4]
    assert names(10, 0) != names(10, 1)


def test_what_a_run_before_left_is_gone(photos: Path, tmp_path: Path) -> None:
    take_samples(str(photos), SHAPE, 8, tmp_path / "out")
    take_samples(str(photos), SHAPE, 3, tmp_path / "out", seed=1)
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_another_model_s_pictures_are_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the bundle answers defect: intact, defective"):
        take_samples(str(photos), Task("defect", ("intact", "defective")), 5, tmp_path / "out")
