"""Memory, mains and heat, read from a file system of the test's."""

from pathlib import Path

import pytest

from headwater.device.federated.budget import Budget, celsius, free_bytes, runs_on_battery
from headwater.device.settings import DeviceSettings


def system(folder: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": "MemTotal: 4000 kB\nMemAvailable:    1000 kB\n", **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def supplies(status: str) -> dict[str, str]:
    folder = "sys/class/power_supply"
    return {f"{folder}/BAT0/type": "Battery\n", f"{folder}/BAT0/status": f"{status}\n", f"{folder}/AC/type": "Mains\n"}


@pytest.mark.parametrize(
    ("limit", "used", "free"),
    [("500000", "100000", 400_000), ("max", "100000", 1_024_000), ("10", "100000", 0), ("9999999999", "1", 1_024_000)],
)
def test_free_memory_is_the_machine_s_or_the_group_s(tmp_path: Path, limit: str, used: str, free: int) -> None:
    group = {"sys/fs/cgroup/memory.max": limit, "sys/fs/cgroup/memory.current": used}
    assert free_bytes(system(tmp_path, group)) == free


def test_this_machine_has_memory() -> None:
    assert free_bytes() > 1 << 20


def test_the_app_is_told_what_it_may_take(tmp_path: Path) -> None:
    settings = DeviceSettings(name="cam", train_data=tmp_path, state=tmp_path, train_memory_mb=3, train_seconds=5.0)
    config = Budget.of(settings).config(settings, Path("bundles/solar"))
    assert config == {
        "device": "cam",
        "bundle": "bundles/solar",
        "data": str(tmp_path),
        "memory-bytes": 3_000_000,
        "seconds": 5.0,
    }


def test_memory_that_was_not_stated_is_half_of_what_is_free(tmp_path: Path) -> None:
    settings = DeviceSettings(name="cam", train_data=tmp_path, state=tmp_path)
    budget = Budget(None, None, on_battery=False, max_celsius=None, system=system(tmp_path, {}))
    assert budget.config(settings, tmp_path)["memory-bytes"] == 512_000
    assert budget.config(settings, tmp_path)["seconds"] == 0.0


@pytest.mark.parametrize(("status", "drained"), [("Discharging", True), ("Charging", False), ("Full", False)])
def test_training_waits_for_the_mains_unless_it_was_told_not_to(tmp_path: Path, status: str, drained: bool) -> None:
    machine = system(tmp_path, supplies(status))
    assert runs_on_battery(machine) == drained
    waits = Budget(None, None, on_battery=False, max_celsius=None, system=machine)
    goes = Budget(None, None, on_battery=True, max_celsius=None, system=machine)
    assert bool(waits.why_not(waiting=False)) == drained
    assert not goes.why_not(waiting=False)


def test_training_waits_until_the_device_is_cooler_than_its_limit_by_some_degrees(tmp_path: Path) -> None:
    zone = "sys/class/thermal/thermal_zone{}/temp"
    hot = system(tmp_path, {zone.format(0): "40000\n", zone.format(1): "71000\n", zone.format(2): "broken"})
    assert celsius(hot) == 71.0
    budget = Budget(None, None, on_battery=False, max_celsius=70.0, system=hot)
    assert budget.why_not(waiting=False) == "the device has 71 degrees"
    system(tmp_path, {zone.format(1): "66000\n"})
    assert budget.why_not(waiting=True)
    assert not budget.why_not(waiting=False)
    system(tmp_path, {zone.format(1): "-5000\n", zone.format(0): "64000"})
    assert not budget.why_not(waiting=True)


def test_a_machine_that_tells_nothing_may_train(tmp_path: Path) -> None:
    budget = Budget(None, None, on_battery=False, max_celsius=60.0, system=system(tmp_path, {}))
    assert not budget.why_not(waiting=False)
