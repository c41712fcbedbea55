"""The service in a machine that systemd boots: installed, enrolled, watched, cut off, and taken out again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from headwater.compression.bundle import Bundle
from tests import tiny

HERE = Path(__file__).parent
TIMEOUT_S = 1200

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("systemd-nspawn") or not Path("/usr/bin/python3").exists(),
        reason="needs root, the system's own python3, and systemd-nspawn (on Debian: apt install systemd-container)",
    ),
]


@pytest.fixture(scope="module")
def facts(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What scenario.py found."""
    folder = tmp_path_factory.mktemp("boot")
    bundle = tiny_bundle.save(folder / "tiny.zip")
    photos = folder / "photos"
    photos.mkdir()
    for seed in range(12):
        Image.fromarray(tiny.image(seed)[0]).save(photos / f"{seed:03}.png")
    work = folder / "work"
    work.mkdir()
    site, scenario = sysconfig.get_path("purelib"), HERE / "scenario.py"
    subprocess.run([HERE / "boot.sh", work, site, scenario, bundle, photos], check=True, timeout=TIMEOUT_S)
    found: dict[str, Any] = json.loads((work / "out/facts.json").read_text())
    assert "error" not in found, json.dumps(found, indent=1).replace("\\n", "\n")
    return found


def test_it_runs_as_its_own_user_and_may_do_nothing_else(facts: dict[str, Any]) -> None:
    assert facts["started"]["ActiveState"] == "active"
    assert (facts["started"]["User"], facts["started"]["NRestarts"]) == ("headwater", "0")
    assert facts["started"]["WatchdogUSec"] == "8s"
    assert facts["started"]["MemoryMax"].isdecimal()
    process = facts["process"]
    assert {process[f"Cap{kind}"] for kind in ("Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert (process["NoNewPrivs"], process["Seccomp"]) == ("1", "2")
    assert "0" not in process["Uid"].split()


def test_its_state_is_its_own(facts: dict[str, Any]) -> None:
    assert facts["state"] == ["0o40700", "headwater", "headwater", "0o100600"]
    assert "pole-7" in facts["enrolled"]
    assert facts["keys"] == [["headwater", "0o100600"]]


def test_one_that_hangs_is_ended_and_started_again(facts: dict[str, Any]) -> None:
    assert facts["again"] == {"ActiveState": "active", "NRestarts": "1"}


def test_a_camera_that_is_missing_is_waited_for(facts: dict[str, Any]) -> None:
    assert facts["waiting"] == {"ActiveState": "active", "NRestarts": "0"}


def test_the_journal_has_levels(facts: dict[str, Any]) -> None:
    lines = [json.loads(line) for line in facts["journal"].splitlines()]
    levels = {line["MESSAGE"]: line["PRIORITY"] for line in lines}
    assert levels["connected to 127.0.0.1:50051"] == "6"
    (waits,) = (message for message in levels if "it is opened again" in message)
    assert levels[waits] == "4"
    assert not [message for message in levels if message.startswith("<")]


def test_nothing_is_left(facts: dict[str, Any]) -> None:
    assert (facts["left"], facts["missing"], facts["users"], facts["units"]) == ([], [], [], "")
