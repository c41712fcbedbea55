"""Real devices, a real server, and the command that calibrates by them; checked in kind, not in speed."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from headwater.compression.errors import SettingsError
from headwater.simulations.fleet.calibrate import CARRYING, Options, checked_run, link_of
from headwater.simulations.fleet.calibration import Calibration
from headwater.simulations.fleet.stage import Stage
from headwater.simulations.fleet.traffic import Traffic
from headwater.simulations.fleet.wire import ACK_BYTES, Timing, answer_bytes, frame_bytes
from headwater.simulations.trace import LinkTrace
from tests import tiny

if TYPE_CHECKING:
    from pathlib import Path

    from headwater.compression.bundle import Bundle
    from headwater.device.record import FrameRecord

PATIENCE_S = 300


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of the tiny bundle's first task, a folder a class."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(60):
        path = folder / tiny.TASKS[0].labels[tiny.labels(seed)[0]] / f"{seed:03d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(tiny.image(seed)[0]).save(path)
    return folder


@pytest.fixture(scope="module")
def pictures(photos: Path) -> list[Path]:
    return sorted(photos.rglob("*.png"))


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle.save(tmp_path_factory.mktemp("bundle") / "tiny.zip")


def test_every_link_with_a_rate_can_be_carried() -> None:
    assert {"cable", "wifi", "lte-m", "nb-iot"} <= set(CARRYING)
    for name in CARRYING:
        assert link_of(name).up.mean_bits_per_s > 0


def test_a_radio_that_sends_packets_cannot() -> None:
    with pytest.raises(SettingsError, match="calibrate has no link lora"):
        link_of("lora")


def test_the_same_seed_has_the_same_weather(tmp_path: Path) -> None:
    one, same, other = (checked_run(Options(tmp_path, link="lte", seed=seed)).link for seed in (1, 1, 2))
    assert one.up.finish(0.0, 1e6) == same.up.finish(0.0, 1e6) != other.up.finish(0.0, 1e6)


@pytest.mark.slow
async def test_real_frames_take_the_bytes_that_are_reckoned(bundle: Path, pictures: list[Path], tmp_path: Path) -> None:
    # Whether something was received before a write is up to the moment; all other bytes are known.
    fixed = {"width": 0.5, "gain": 1}
    traffic = Traffic("test", LinkTrace.constant("quick", 1e7), 2, fps=10.0, seconds=14.0, settings=fixed)
    async with Stage(bundle, tmp_path, "shape", pictures) as stage:
        played = await stage.play(traffic)
    for device in played.devices:
        assert [record.name for record in device.records] == [str(number) for number in range(140)]
        up = sum(frame_bytes(record.bytes, record.sequence, 0, ("shape",)) for record in device.records)
        down = sum(answered_bytes(record) for record in device.records)
        assert up + ACK_BYTES <= device.up_bytes <= up + ACK_BYTES * 140
        assert down + ACK_BYTES <= device.down_bytes <= down + ACK_BYTES * 140
        assert device.connect_up_bytes > 200


def answered_bytes(record: FrameRecord) -> int:
    said = record.server
    timing = Timing(said.queue_us, said.decode_us, said.run_us, said.batch, said.queue_depth)
    return answer_bytes({"shape": 3}, record.sequence, timing, record.groups_used)


@pytest.mark.slow
def test_the_command(bundle: Path, photos: Path, tmp_path: Path) -> None:
    given = {
        "bundle": bundle, "source": photos, "seconds": 2, "devices": 2, "fps": 8, "link": "lte-m", "deadline-ms": 400,
        "out": tmp_path / "calibration.toml", "report": tmp_path / "report.html", "work": tmp_path / "work",
    }  # fmt: skip
    flags = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "headwater.compression.cli", "simulate", "calibrate", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "2 on lte-m, 400 ms" in done.stdout
    assert re.search(r"real\b.*\n.*twin\b", done.stdout)
    assert "95th percentile" in done.stdout
    made = Calibration.load(tmp_path / "calibration.toml")
    assert made.widths == (0.25, 0.5, 0.75, 1.0)
    assert {frames.action for frames in made.frames} == {"send", "local"}
    assert made.task == "shape"
    assert 0 < made.slack_ms <= 60
    assert made.server_start_s > 0
    assert made.device_start_s > 0
    assert min(min(frames.head_ms) for frames in made.frames) > 0
    assert "polyline" in (tmp_path / "report.html").read_text(encoding="utf-8")
