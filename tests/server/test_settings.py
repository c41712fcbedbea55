from __future__ import annotations

import os
from pathlib import Path

import pytest

from headwater.compression.errors import SettingsError
from headwater.compression.settings import descriptions, resolve
from headwater.server.settings import ServerSettings, is_loopback, split_address


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:50051", "[::1]:50051", "127.8.8.8:1"])
def test_loopback_needs_no_leave(listen: str) -> None:
    assert ServerSettings(listen=listen).listen == listen


@pytest.mark.parametrize("listen", ["0.0.0.0:50051", "[::]:50051", "192.168.1.4:50051", "edge.local:50051"])
def test_anything_else_is_encrypted_which_needs_a_state(listen: str) -> None:
    with pytest.raises(SettingsError, match="--state DIR"):
        ServerSettings(listen=listen)
    assert ServerSettings(listen=listen, state=Path("state")).encrypted


@pytest.mark.parametrize("address", ["", "localhost", ":50051", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000"])
def test_an_address_that_is_none_says_how_one_looks(address: str) -> None:
    with pytest.raises(SettingsError, match="host:port"):
        split_address("listen", address)


def test_addresses_are_split() -> None:
    assert split_address("listen", "127.0.0.1:80") == ("127.0.0.1", 80)
    assert split_address("listen", "[::1]:0") == ("::1", 0)
    assert not is_loopback("example.org")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_batch", 0),
        ("queue", 0),
        ("workers", -1),
        ("threads", 0),
        ("max_wait_ms", -1.0),
        ("grace_s", -1.0),
        ("max_in_flight", 0),
        ("max_streams", 0),
        ("max_frame_bytes", 1),
        ("heartbeat_ms", 1),
        ("answer_partial_after_ms", 0),
    ],
)
def test_numbers_out_of_range_are_errors_that_name_the_key(key: str, value: float) -> None:
    with pytest.raises(SettingsError, match=key):
        ServerSettings(**{key: value})  # type: ignore[arg-type]


def test_workers_default_to_the_cores() -> None:
    assert ServerSettings().worker_count >= 1
    assert ServerSettings(workers=3).worker_count == 3


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 1), (8, 7)])
def test_pin_leaves_a_core_for_all_else(cores: int, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert ServerSettings(pin=True).worker_count == workers


def test_pin_and_threads_do_not_go_together() -> None:
    with pytest.raises(SettingsError, match="pin gives a worker one core, but threads is 2"):
        ServerSettings(pin=True, threads=2)


def test_every_key_is_described() -> None:
    assert set(descriptions(ServerSettings)) == set(resolve(ServerSettings, environment={}).origin)


@pytest.mark.parametrize(
    ("settings", "frames"),
    [
        (ServerSettings(workers=2), 64),
        (ServerSettings(workers=1, max_batch=8), 8),
        (ServerSettings(workers=64), 256),  # no more than may wait
        (ServerSettings(workers=2, max_batch=32, queue=16), 32),
    ],
)
def test_the_memory_of_the_start_is_that_of_full_batches(settings: ServerSettings, frames: int) -> None:
    assert settings.most_at_once == frames
