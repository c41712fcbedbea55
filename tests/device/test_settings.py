"""Ranges and words of the device's settings."""

from dataclasses import replace
from pathlib import Path

import pytest

from headwater.compression.errors import SettingsError
from headwater.compression.settings import descriptions, resolve
from headwater.device.control.policy import PRICES, Policy
from headwater.device.settings import DeviceSettings


def test_defaults_are_sound_and_every_key_is_explained() -> None:
    resolved = resolve(DeviceSettings, environment={})
    assert resolved.value.device_name
    assert set(descriptions(DeviceSettings)) == set(resolved.origin)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("threads", 0),
        ("window", 0),
        ("retry_s", 0.0),
        ("fps", 0.0),
        ("count", 0),
        ("deadline_ms", 0),
        ("gain", -1),
        ("progressive_bytes", -1),
        ("max_bytes_per_s", 0.0),
    ],
)
def test_out_of_range(key: str, value: object) -> None:
    with pytest.raises(SettingsError, match=f"{key} is {value}; it must be from"):
        resolve(DeviceSettings, {key: value}, environment={})


@pytest.mark.parametrize("server", ["edge", "edge:", "edge:port", "", "edge:1,edge"])
def test_a_server_has_a_port(server: str) -> None:
    with pytest.raises(SettingsError, match="must be host:port"):
        resolve(DeviceSettings, environment={"HEADWATER_DEVICE_SERVER": server})


@pytest.mark.parametrize("server", ["edge:1", "10.0.0.1:50051", "[::1]:50051", "unix:/run/edge.sock"])
def test_addresses(server: str) -> None:
    assert DeviceSettings(server=(server,)).server == (server,)


@pytest.mark.parametrize("written", ['"a:1, b:2"', '["a:1", "b:2"]'])
def test_several_addresses(written: str, tmp_path: Path) -> None:
    file = tmp_path / "headwater.toml"
    file.write_text(f"[device]\nserver = {written}\n")
    assert resolve(DeviceSettings, file=file, environment={}).value.server == ("a:1", "b:2")


def test_the_bundle_has_no_default() -> None:
    assert DeviceSettings(bundle=Path("x")).bundle_path == Path("x")
    with pytest.raises(SettingsError, match="give --bundle PATH"):
        _ = DeviceSettings().bundle_path


def test_the_policy_is_what_the_flags_say() -> None:
    assert DeviceSettings().policy == Policy()
    settings = DeviceSettings(
        deadline_ms=300,
        level=0.9,
        objective="energy",
        slack=2.5,
        max_bytes_per_s=1000,
        radio="lte",
        compute_watts=3,
        prefer=("defect=2", "cell_type = 0.5"),
    )
    assert settings.policy == Policy(
        objective="energy",
        level=0.9,
        slack=2.5,
        max_bytes_per_s=1000,
        prices=replace(PRICES["lte"], compute_watts=3),
        prefer={"defect": 2.0, "cell_type": 0.5},
    )
    cable = DeviceSettings(objective="energy", radio="none").policy.prices
    assert (cable.joule_per_byte, cable.radio_watts, cable.compute_watts) == (0.0, 0.0, PRICES["wifi"].compute_watts)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"width": 0.5, "objective": "bytes"}, "objective is for choosing modes, and width or gain fix one"),
        ({"gain": 0, "whole_model": True}, "whole_model is for choosing modes"),
        ({"gain": 0, "max_bytes_per_s": 100}, "max_bytes_per_s is for choosing modes"),
        ({"gain": 0, "prefer": ("a=1",)}, "prefer is for choosing modes"),
        ({"gain": 0, "level": 0.9, "deadline_ms": 100}, "level is for choosing modes"),
        ({"level": 0.9}, "give --deadline-ms too"),
        ({"level": 1.0, "deadline_ms": 100}, "level is 1; it must be a probability"),
        ({"slack": 1.0}, "give --objective too"),
        ({"radio": "lte"}, "give --objective energy too"),
        ({"compute_watts": 2.0, "objective": "bytes"}, "give --objective energy too"),
        ({"compute_watts": -1.0, "objective": "energy"}, "compute_watts is -1"),
        ({"prefer": ("defect",)}, "prefer has 'defect'; it must be tasks with weights, such as defect=2"),
        ({"prefer": ("defect=-1",)}, "prefer has 'defect=-1'"),
    ],
)
def test_what_contradicts_another_setting(given: dict[str, object], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        resolve(DeviceSettings, given, environment={})


def test_preferences_in_the_environment() -> None:
    given = resolve(DeviceSettings, environment={"HEADWATER_DEVICE_PREFER": "defect=2, cell_type=1"}).value
    assert given.policy.prefer == {"defect": 2.0, "cell_type": 1.0}


def test_training_needs_a_place_for_its_state_and_a_folder_of_pictures(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="give --state DIR"):
        DeviceSettings(train_data=tmp_path)
    with pytest.raises(SettingsError, match="must be a folder of labelled pictures"):
        DeviceSettings(train_data=tmp_path / "none", state=tmp_path)
    assert DeviceSettings(train_data=tmp_path, state=tmp_path).train_app == "headwater.device.federated.app:app"


@pytest.mark.parametrize("app", ["app", "fleet.client", ":app", "fleet.client:", "fleet/client.py:app"])
def test_an_app_is_a_module_and_a_name(app: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="must be MODULE:NAME"):
        DeviceSettings(train_data=tmp_path, state=tmp_path, train_app=app)
