"""What an agent makes of a bundle before its first picture."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from headwater.compression.bundle import Bundle
from headwater.compression.errors import BundleError, SettingsError
from headwater.device.control.controller import FixedController, Situation
from headwater.device.control.deadline import DeadlineController
from headwater.device.loaded import controller_for, load
from headwater.device.settings import DeviceSettings
from tests import tiny


def test_a_bundle_or_its_path(tiny_bundle: Bundle, tmp_path: Path) -> None:
    of_bundle = load(tiny_bundle, DeviceSettings())
    of_path = load(tiny_bundle.save(tmp_path / "tiny.zip"), DeviceSettings())
    assert of_bundle.bundle_id == of_path.bundle_id == tiny_bundle.id
    assert of_bundle.maker.local_exit is None
    assert of_bundle.whole is None


def test_width_or_gain_fix_the_mode(tiny_bundle: Bundle) -> None:
    assert isinstance(controller_for(tiny_bundle, DeviceSettings()), DeadlineController)
    fixed = controller_for(tiny_bundle, DeviceSettings(width=0.5, gain=2))
    assert isinstance(fixed, FixedController)
    assert fixed.mode == 6


def test_what_the_bundle_lacks_is_refused(tiny_bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="no mode of width"):
        load(tiny_bundle, DeviceSettings(width=0.3))


def test_a_task_that_only_a_server_can_have_is_no_error_yet(tiny_bundle: Bundle) -> None:
    assert load(tiny_bundle, DeviceSettings(tasks=("column", "shape"))).manifest.tasks == tiny.TASKS


def test_pictures_need_a_folder(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="reconstruct is answered with a picture; say with --save-images"):
        load(tiny.later(), DeviceSettings(tasks=("shape", "reconstruct")))
    load(tiny.later(), DeviceSettings(tasks=("shape", "reconstruct"), save_images=tmp_path))
    load(tiny.later(), DeviceSettings())


def test_the_exit_that_the_settings_ask_for(tiny_bundle: Bundle) -> None:
    for max_drop, deadline_ms in ((None, 300), (1.0, None), (None, None)):
        asked = DeviceSettings(max_drop=max_drop, deadline_ms=deadline_ms, tasks=("shape",))
        wanted = max_drop is not None or deadline_ms is not None
        assert (load(tiny_bundle, asked).maker.local_exit is not None) == wanted
    with pytest.raises(SettingsError, match="ask for that task alone"):
        load(tiny_bundle, DeviceSettings(max_drop=1.0))


def test_the_whole_model_that_the_settings_ask_for(tiny_bundle: Bundle) -> None:
    assert load(tiny_bundle, DeviceSettings(whole_model=True, tasks=("shape",))).whole is not None
    with pytest.raises(SettingsError, match="whole model of tiny answers only shape"):
        load(tiny_bundle, DeviceSettings(whole_model=True))


def test_the_rule_knows_what_the_user_wants_and_what_the_device_has(tiny_bundle: Bundle) -> None:
    asked = DeviceSettings(tasks=("shape",), whole_model=True, deadline_ms=300, objective="bytes", slack=2)
    loaded = load(tiny_bundle, asked)
    rule = loaded.controller
    assert isinstance(rule, DeadlineController)
    assert rule.policy == asked.policy
    alone = Situation(deadline_ms=300, connected=False, exit_available=True)
    assert rule.choose(alone).action == "local"
    assert rule.choose(replace(alone, whole_ms=1.0)).action == "whole", "the exit is worse by more than the slack"
    only_elsewhere = load(tiny_bundle, DeviceSettings(tasks=("column",))).controller
    assert only_elsewhere.choose(Situation()).action == "send"


def test_preferences_are_among_what_is_asked_for(tiny_bundle: Bundle) -> None:
    load(tiny_bundle, DeviceSettings(prefer=("shape=2", "bright=1")))
    with pytest.raises(SettingsError, match="prefer names bright, but asked for are shape; name some of these"):
        load(tiny_bundle, DeviceSettings(prefer=("bright=2",), tasks=("shape",)))


def test_frames_in_parts_are_off_until_they_are_asked_for(tiny_bundle: Bundle) -> None:
    picture = Image.fromarray(tiny.image(1)[0])
    for settings, parts in (
        (DeviceSettings(progressive_bytes=10), 0),
        (DeviceSettings(progressive=True), 0),  # no frame of this bundle is as long as the default
        (DeviceSettings(progressive=True, progressive_bytes=10), 2),
    ):
        assert len(load(tiny_bundle, settings).maker.make(picture, 15).parts) == parts
