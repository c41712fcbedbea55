"""Ranges and words of the device's settings."""

from pathlib import Path

import pytest

from headwater.compression.errors import SettingsError
from headwater.compression.settings import descriptions, resolve
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
    ],
)
def test_out_of_range(key: str, value: object) -> None:
    with pytest.raises(SettingsError, match=f"{key} is {value}; it must be from"):
        resolve(DeviceSettings, {key: value}, environment={})


@pytest.mark.parametrize("server", ["edge", "edge:", "edge:port", ""])
def test_a_server_has_a_port(server: str) -> None:
    with pytest.raises(SettingsError, match="must be host:port"):
        DeviceSettings(server=server)


@pytest.mark.parametrize("server", ["edge:1", "10.0.0.1:50051", "[::1]:50051", "unix:/run/edge.sock"])
def test_addresses(server: str) -> None:
    assert DeviceSettings(server=server).server == server


def test_the_bundle_has_no_default() -> None:
    assert DeviceSettings(bundle=Path("x")).bundle_path == Path("x")
    with pytest.raises(SettingsError, match="give --bundle PATH"):
        _ = DeviceSettings().bundle_path
