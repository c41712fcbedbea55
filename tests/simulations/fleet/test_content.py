"""What known pictures become, beside what a device makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from PIL import Image

from headwater.compression.errors import DataError
from headwater.device.exit import LocalExit
from headwater.device.head import FrameMaker
from headwater.device.settings import DeviceSettings
from headwater.simulations.fleet.content import Content
from headwater.simulations.fleet.station import without_exit
from tests import tiny

if TYPE_CHECKING:
    from pathlib import Path

    from headwater.compression.bundle import Bundle

SETTINGS = DeviceSettings(tasks=("shape",), deadline_ms=300)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(tiny.image(3)[0]).save(path)
    return path


def test_a_frame_is_as_long_as_a_devices_whole_and_cut(tiny_bundle: Bundle, picture: Path) -> None:
    content = Content(tiny_bundle, SETTINGS, [picture])
    maker = FrameMaker(tiny_bundle, local_exit=LocalExit.of(tiny_bundle, SETTINGS))
    with Image.open(picture) as image:
        for mode in tiny_bundle.manifest.modes:
            for groups in (None, *range(1, maker.groups + 1)):
                assert content.size(0, mode.index, groups) == len(maker.make(image, mode.index, groups).data)


def test_the_exit_is_as_sure_as_a_devices(tiny_bundle: Bundle, picture: Path) -> None:
    maker = FrameMaker(tiny_bundle, local_exit=LocalExit.of(tiny_bundle, SETTINGS))
    with Image.open(picture) as image:
        judged = maker.look(image, 0).judged
    assert judged is not None
    assert Content(tiny_bundle, SETTINGS, [picture]).confidence(0, 0) == judged.confidence
    assert Content(without_exit(tiny_bundle), SETTINGS, [picture]).confidence(0, 0) is None


def test_only_what_is_asked_for_is_read(tiny_bundle: Bundle, picture: Path, tmp_path: Path) -> None:
    content = Content(tiny_bundle, SETTINGS, [picture, tmp_path / "none.png"])
    assert content.size(0, 0) > 0
    with pytest.raises(DataError):
        content.size(1, 0)
