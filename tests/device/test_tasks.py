"""What there is to ask for, at either side."""

from pathlib import Path

import pytest

from headwater.compression.errors import SettingsError
from headwater.compression.manifest import Task
from headwater.device.settings import DeviceSettings
from headwater.device.tasks import check, known, lacking, offered
from headwater.protos import edge_pb2 as pb
from tests import tiny

SPECS = [
    pb.TaskSpec(name="shape", labels=["left", "middle", "right"], kind=pb.TASK_KIND_CLASSIFY),
    pb.TaskSpec(name="column", labels=["a", "b"]),
    pb.TaskSpec(name="reconstruct", kind=pb.TASK_KIND_IMAGE),
]


def test_a_server_s_tasks() -> None:
    shape, column, picture = offered(SPECS)
    assert shape == tiny.TASKS[0]
    assert column == Task("column", ("a", "b")), "an older server says no kind"
    assert picture == Task("reconstruct", (), "image")


def test_the_bundle_s_own_are_known_and_what_a_server_has_beside_them() -> None:
    manifest = tiny.bundle().manifest
    assert known(manifest, ()) == tiny.TASKS
    assert known(manifest, SPECS) == (*tiny.TASKS, *offered(SPECS[1:]))
    assert lacking(manifest, ["column", "shape"])
    assert not lacking(manifest, ["shape"])
    assert not lacking(manifest, [])


def test_what_can_be_asked_for(tmp_path: Path) -> None:
    manifest = tiny.bundle().manifest
    for settings in (
        DeviceSettings(),
        DeviceSettings(tasks=("column", "bright")),
        DeviceSettings(tasks=("reconstruct",), save_images=tmp_path),
    ):
        check(settings, manifest, SPECS)
    with pytest.raises(SettingsError, match=r"'columns': the bundle tiny has shape, bright; the server .* has none"):
        check(DeviceSettings(tasks=("columns",)), manifest, ())
    with pytest.raises(SettingsError, match="say with --save-images DIR"):
        check(DeviceSettings(tasks=("reconstruct",)), manifest, SPECS)
