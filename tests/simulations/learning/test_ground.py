"""Whose images are whose: shared out, drawn, a folder a device; and what the server measures on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="federated learning needs the extra [federated]")

from headwater.compression.errors import DataError
from headwater.compression.labelled import open_labelled
from headwater.compression.learning.local_data import local_data
from headwater.compression.manifest import Task
from headwater.simulations.learning.ground import ground
from headwater.simulations.learning.settings import LearningSettings
from tests import learnable

TASK = Task("digit", ("one", "two"))
MANIFEST = dataclasses.replace(learnable.bundle().manifest, tasks=(TASK,))


def pictures(folder: Path, count: int) -> None:
    for n in range(count):
        path = folder / TASK.labels[n % 2] / f"{folder.name}-{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 20), n, np.uint8)).save(path)


def test_of_a_folder_a_fifth_is_the_server_s_and_nobody_learns_from_it(tmp_path: Path) -> None:
    pictures(tmp_path / "data", 40)
    told = LearningSettings(devices=4, partition="dirichlet:100")
    stands = ground(str(tmp_path / "data"), MANIFEST, told, tmp_path / "out")
    assert stands.measured is not None
    held = open_labelled(Path(stands.measured), [TASK])
    assert len(held) == 8
    values = {item.load().getpixel((0, 0)) for item in held.items}
    learnt = [local_data(MANIFEST, {**stands.images.config, "partition-id": n}).train for n in range(4)]
    assert [len(each) for each in learnt] == stands.images.counts.tolist()
    seen = {int(image[0, 0, 0]) for each in learnt for image in each.images}
    assert len(seen) == 32
    assert not values & seen


def test_a_folder_a_device_serves_again_where_devices_are_more(tmp_path: Path) -> None:
    for name, count in (("a", 10), ("b", 4), ("test", 6)):
        pictures(tmp_path / name, count)
    stands = ground(str(tmp_path), MANIFEST, LearningSettings(devices=5, partition="folder"), tmp_path / "out")
    assert [Path(folder).name for folder in stands.images.folders] == ["a", "b"]
    assert stands.images.counts.tolist() == [8, 4]
    assert stands.measured == str(tmp_path / "test")
    with pytest.raises(DataError, match="no folder of a device"):
        ground(str(tmp_path / "test" / "one"), MANIFEST, LearningSettings(partition="folder"), tmp_path / "out")


def test_domains_are_labels_of_another_task(tmp_path: Path) -> None:
    manifest = dataclasses.replace(MANIFEST, tasks=(TASK, Task("kind", ("old", "new"))))
    pictures(tmp_path / "data", 20)
    lines = [f"{path.relative_to(tmp_path / 'data')}" for path in sorted((tmp_path / "data").rglob("*.png"))]
    rows = [f"{name},{Path(name).parent.name},{('old', 'new')[n % 2]}" for n, name in enumerate(lines)]
    (tmp_path / "data" / "labels.csv").write_text("file,digit,kind\n" + "\n".join(rows) + "\n")
    told = LearningSettings(devices=4, partition="domain")
    stands = ground(str(tmp_path / "data"), manifest, told, tmp_path / "out")
    assert stands.images.config["partition-domain"] == "kind"
    first = local_data(manifest, {**stands.images.config, "partition-id": 0}).train
    assert len(set(first.labels["kind"].tolist())) == 1
    told = LearningSettings(devices=4, partition="domain:colour")
    with pytest.raises(DataError, match="has kind besides digit"):
        ground(str(tmp_path / "data"), manifest, told, tmp_path / "out")
