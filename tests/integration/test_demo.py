"""The demo as a user starts it: real processes, real sockets, a report at the end, and nobody left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from PIL import Image

from headwater.device.record import read_records
from headwater.server.federation.survey import survey
from headwater.server.rollout.versions import Versions
from headwater.simulations.demo.run import STATIONS
from tests import rebuildable, tiny

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwater.compression.bundle import Bundle

PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of the tiny bundle's first task, a folder a class."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(120):
        path = folder / tiny.TASKS[0].labels[tiny.labels(seed)[0]] / f"{seed:03d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(tiny.image(seed)[0]).save(path)
    return folder


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle.save(tmp_path_factory.mktemp("bundle") / "tiny.zip")


def command(bundle: Path, photos: Path, out: Path, *more: str) -> list[str]:
    given = {"bundle": bundle, "source": photos, "out": out, "codec-pictures": 20}
    flags = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    return [sys.executable, "-m", "headwater.compression.cli", "demo", *flags, *more]


def run(arguments: list[str], patience_s: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=patience_s)


def test_the_whole_demo(bundle: Path, photos: Path, tmp_path: Path) -> None:
    done = run(command(bundle, photos, tmp_path, "--seconds", "3"))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "left out; the bundle has no weights.safetensors to learn from" in done.stdout
    for title in (station.title for station in STATIONS):
        assert re.search(rf"^{title}: \d+ frames, accuracy \d+\.\d%, \d+ bytes, mode ", done.stdout, re.MULTILINE)
    assert done.stdout.splitlines()[-1].split() == ["report:", str(tmp_path / "report.html")]

    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert [link["link"] for link in result["links"]] == ["lora", "nb-iot", "lte-m", "wifi"]
    for link in result["links"]:
        records = list(read_records(tmp_path / "logs" / f"{link['link']}.jsonl"))
        assert link["answered"] == link["frames"] == len(records) > 0
        assert link["accuracy"] > 0.9
    slowest, fastest = result["links"][0], result["links"][-1]
    assert fastest["frames"] > slowest["frames"]
    assert fastest["stages_ms"]["uplink"] < 100
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://", text)


@pytest.mark.slow
def test_two_devices_learn_and_change_to_the_better_bundle_without_losing_a_frame(tmp_path: Path) -> None:
    given = rebuildable.with_recipe().save(tmp_path / "small.zip")
    shown = rebuildable.photos(tmp_path / "kinds", 240)
    done = run(command(given, shown, tmp_path / "out", "--seconds", "1"), patience_s=5 * PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    act = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))["last_act"]
    assert (act["lost"], act["note"]) == (0, "")
    assert act["answered_by_old"] + act["answered_by_new"] == act["frames"]
    assert min(act["answered_by_old"], act["answered_by_new"]) >= 40
    assert act["pictures"] > 0
    assert act["round"]["bytes_up"] > 100  # two updates, no error reply
    state = tmp_path / "out" / "learning" / "state"
    assert [each.states for each in survey(state).rounds] == [{"believed": 2}]
    with Versions.existing(state) as versions:
        (release,) = versions.releases()
        assert release.bundle[:5].hex() == act["new"]
        assert set(versions.members(release.serial).values()) == {("in use", "")}


@pytest.mark.parametrize(
    "number", [signal.SIGINT, *(pytest.param(one, marks=pytest.mark.slow) for one in (signal.SIGTERM, signal.SIGKILL))]
)
def test_stopping_it_leaves_no_process_behind(
    bundle: Path, photos: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with subprocess.Popen(
        command(bundle, photos, tmp_path, "--seconds", "60"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as demo:
        family = _family_at_work(demo, tmp_path)
        os.kill(demo.pid, number)
        _, errors = demo.communicate(timeout=PATIENCE_S)
    assert len(family) == 5
    assert demo.returncode != 0
    assert "Traceback" not in errors
    for member in _until_gone(family):
        raise AssertionError(f"{member} outlived the demo")


def test_a_taken_port_is_named(bundle: Path, photos: Path, tmp_path: Path) -> None:
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = run(command(bundle, photos, tmp_path, "--seconds", "1", "--port", str(port)))
    assert done.returncode == 2
    assert f"the server cannot listen on 127.0.0.1:{port}: Address already in use" in done.stderr


def test_a_missing_bundle_is_named(photos: Path, tmp_path: Path) -> None:
    done = run(command(tmp_path / "nothing", photos, tmp_path))
    assert done.returncode == 1
    assert f"there is no bundle at {tmp_path / 'nothing'}" in done.stderr


def test_pictures_of_another_task_are_refused(bundle: Path, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for at in range(4):
            Image.new("L", (8, 8), at).save(tmp_path / "pets" / name / f"{at}.png")
    done = run(command(bundle, tmp_path / "pets", tmp_path / "out"))
    assert done.returncode == 1
    assert "the bundle answers shape: left, middle, right" in " ".join(done.stderr.split())


def _family_at_work(demo: subprocess.Popen[str], out: Path) -> list[psutil.Process]:
    """The demo's children, once its fastest device has answers."""
    deadline = time.monotonic() + PATIENCE_S
    records = out / "logs" / "wifi.jsonl"
    while not (records.exists() and records.stat().st_size):
        assert time.monotonic() < deadline, "the demo does not start"
        assert demo.poll() is None, demo.communicate()[1]
        time.sleep(0.05)
    return list(_children(demo.pid))


def _children(pid: int) -> Iterator[psutil.Process]:
    yield from psutil.Process(pid).children(recursive=True)


def _until_gone(family: list[psutil.Process]) -> list[psutil.Process]:
    """Those who are still there in the end; one that nobody reaped is gone as well."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        family = [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
        if not family:
            break
        time.sleep(0.05)
    return family
