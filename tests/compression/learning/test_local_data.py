"""What a device learns from: folders that lack classes, tables, broken files; shares that are skewed and complete."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headwater.compression.datasets import open_dataset, split
from headwater.compression.errors import DataError
from headwater.compression.labelled import open_labelled
from headwater.compression.learning.local_data import local_data
from headwater.compression.learning.partition import LEAST, Shares
from headwater.compression.manifest import Task
from tests import learnable

TASK = Task("digit", ("one", "two", "three"))
MANIFEST = dataclasses.replace(learnable.bundle().manifest, tasks=(TASK,))


def picture(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 20), value, np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for n in range(10):
        picture(tmp_path / "data" / ("one" if n < 8 else "three") / f"{n}.png", 20 * n)
    return tmp_path / "data"


def test_a_folder_may_lack_classes_and_holds_a_part_out(folder: Path) -> None:
    (folder / "one" / "cut.png").write_bytes(b"\x89PNG cut short")
    data = local_data(MANIFEST, {"data": str(folder)})
    assert len(data.train) + len(data.test) == 10, "what cannot be read is left out"
    assert len(data.test) == 2
    assert sorted(data.train.labels["digit"].tolist() + data.test.labels["digit"].tolist()) == [0] * 8 + [2] * 2
    assert data.train.images.shape[1:] == learnable.SPEC.shape


def test_a_picture_that_comes_or_changes_is_learnt_from(folder: Path) -> None:
    before = local_data(MANIFEST, {"data": str(folder)})
    assert local_data(MANIFEST, {"data": str(folder)}).train is before.train, "nothing is decoded again"
    picture(folder / "two" / "new.png", 255)
    after = local_data(MANIFEST, {"data": str(folder)})
    assert len(after.train) + len(after.test) == 11


def test_a_folder_s_own_test_pictures_are_never_learnt_from(folder: Path) -> None:
    picture(folder / "test" / "two" / "held.png", 9)
    data = local_data(MANIFEST, {"data": str(folder)})
    assert len(data.train) == 10
    assert data.test.labels["digit"].tolist() == [1]


def test_one_picture_is_learnt_from_and_none_held_out(tmp_path: Path) -> None:
    picture(tmp_path / "two" / "only.png", 9)
    data = local_data(MANIFEST, {"data": str(tmp_path)})
    assert (len(data.train), len(data.test)) == (1, 0)


def test_a_table_names_labels_of_the_bundle_s_tasks(folder: Path) -> None:
    (folder / "labels.csv").write_text("file,digit,mood\none/1.png,two,good\none/2.png,two,bad\n")
    found = open_labelled(folder, [TASK])
    assert [item.labels for item in found.items] == [{"digit": 1}, {"digit": 1}]
    (folder / "labels.csv").write_text("file,digit\none/1.png,seven\n")
    with pytest.raises(DataError, match="says seven; the bundle's digit is one of one, two, three"):
        open_labelled(folder, [TASK])
    (folder / "labels.csv").write_text("file,mood\none/1.png,good\n")
    with pytest.raises(DataError, match="has columns mood; the bundle's tasks are digit"):
        open_labelled(folder, [TASK])


def test_folders_that_do_not_fit_say_what_is_wanted(folder: Path, tmp_path: Path) -> None:
    picture(folder / "seven" / "7.png", 7)
    with pytest.raises(DataError, match="has seven; the bundle's digit is one of one, two, three"):
        open_labelled(folder, [TASK])
    with pytest.raises(DataError, match=r"has no pictures; put those of each class into .*one/, .*two/"):
        open_labelled(_empty(tmp_path), [TASK])
    with pytest.raises(DataError, match="is no folder"):
        open_labelled(tmp_path / "nowhere", [TASK])
    with pytest.raises(DataError, match='data="FOLDER"'):
        local_data(MANIFEST, {})


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def test_shares_are_skewed_complete_and_the_same_each_time() -> None:
    dataset = open_dataset("digits")
    shares = Shares(8, alpha=0.1, seed=3)
    parts = [shares.part(dataset, "digit", device) for device in range(8)]
    names = [item.name for part in parts for item in part.items]
    assert sorted(names) == sorted(item.name for item in dataset.items), "each picture is on one device"
    assert all(len(part) >= LEAST for part in parts)
    assert [item.name for item in shares.part(dataset, "digit", 2).items] == [item.name for item in parts[2].items]
    most = [np.bincount(part.labels("digit")).max() / len(part) for part in parts]
    even = [Shares(8, alpha=1e4).part(dataset, "digit", device) for device in range(8)]
    assert np.mean(most) > 2 * np.mean([np.bincount(part.labels("digit")).max() / len(part) for part in even])


def test_a_device_sees_one_domain() -> None:
    rng = np.random.default_rng(0)
    domains, labels = rng.integers(0, 2, 500), rng.integers(0, 3, 500)
    seat = Shares(5, "cell_type", alpha=1.0).assign(labels, domains)
    assert set(seat.tolist()) == set(range(5))
    assert all(len(set(domains[seat == device].tolist())) == 1 for device in range(5))
    with pytest.raises(DataError, match="2 domains cannot be shared out to 1 devices"):
        Shares(1).assign(labels, domains)


def test_what_is_measured_on_is_on_no_device() -> None:
    manifest = learnable.bundle().manifest
    train, test = split(open_dataset("digits"), 0.25, 0)
    config = {"data": "digits", "num-partitions": 4, "partition-alpha": 0.5}
    parts = [local_data(manifest, {**config, "partition-id": device}) for device in range(4)]
    assert sum(len(part.train) for part in parts) == len(train)
    assert sum(len(part.test) for part in parts) == len(test)
    with pytest.raises(DataError, match="no share 4 of 4"):
        local_data(manifest, {**config, "partition-id": 4})
    with pytest.raises(DataError, match="no task digit with the labels one, two, three"):
        local_data(MANIFEST, config)
