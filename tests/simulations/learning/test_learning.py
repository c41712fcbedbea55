"""The command with the fleet's own apps: in this process, on actors, killed, and on a cluster of two machines."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr", reason="federated learning needs the extra [federated]")
pytest.importorskip("torch", reason="federated learning needs the extra [federated]")

from headwater.compression.errors import DataError, SettingsError
from headwater.compression.learning.network import SplitNetwork
from headwater.compression.learning.reading import network_of
from headwater.compression.updates import Scheme
from headwater.device.federated.holding import Start
from headwater.server.federation.settings import RoundSettings
from headwater.server.federation.survey import survey
from headwater.simulations.learning.crew import Alone
from headwater.simulations.learning.run import Question, simulate
from headwater.simulations.learning.settings import LearningSettings
from tests import learnable
from tests.integration.flower import WITHIN_S, free_ports, listens, until

ROOT = Path(__file__).parents[3]
UP = Scheme("ternary", keep=0.01).to_json()
TOLD = RoundSettings(rounds=2, epochs=0.5, deadline_s=60.0, evaluate_every=2, up=UP)
FLEET = LearningSettings(devices=8, images=6, widths="0.5:0.5,1.0:0.5", stragglers="0.25:4", liars="0.2:noise", seed=3)
FLAGS = (
    *("--devices", "8", "--images", "6", "--widths", "0.5:0.5,1.0:0.5", "--stragglers", "0.25:4"),
    *("--hostile", "0.2:noise", "--seed", "3", "--rounds", "2", "--epochs", "0.5"),
    *("--deadline-s", "60", "--evaluate-every", "2", "--up", UP),
)
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Flower's simulation engine needs Ray, of the extra [simulate]"
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return learnable.bundle().save(tmp_path_factory.mktemp("bundle") / "digits")


def ours(bundle: Path, out: Path, fleet: LearningSettings = FLEET, **how: Any) -> dict[str, Any]:  # noqa: ANN401
    """In this process. (The rounds' own seed is the fleet's, as on the command line.)"""
    told = RoundSettings(**{**TOLD.to_json(), "seed": fleet.seed})
    return simulate(Question("digits", bundle, fleet, told), out, Alone, **how)


@pytest.fixture(scope="module")
def whole(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulation that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole")
    ours(bundle, out)
    return out


def test_a_fleet_learns_and_says_how_its_devices_fared(whole: Path) -> None:
    result = json.loads((whole / "result.json").read_text())
    assert [sum(each["states"].values()) for each in result["rounds"]] == [8, 8]
    assert {"accuracy", "loss", "accuracy-narrow"} == result["rounds"][1]["facts"]["measured"].keys()
    groups = result["devices"]
    assert {name: group["devices"] for name, group in groups.items()} == {
        "all": 8,
        "width 0.5": 4,
        "width 1": 4,
        "hostile": 2,
    }
    assert groups["width 0.5"]["bytes_up"]["mean"] < groups["width 1"]["bytes_up"]["mean"]
    assert len(groups["all"]["accuracy"]["quantiles"]) == 21
    widths = {each.width for each in survey(whole).devices}
    assert widths == {0.5, 1.0}, "the app itself found what fits"
    page = (whole / "report.html").read_text()
    assert "accuracy on the device&#x27;s own images" in page or "accuracy on the device's own images" in page
    assert "8 virtual devices" in page


def test_a_folder_is_one_simulation_s(bundle: Path, whole: Path, tmp_path: Path) -> None:
    before = (whole / "result.json").read_bytes()
    ours(bundle, whole)
    assert (whole / "result.json").read_bytes() == before, "one that has ended is told again"
    with pytest.raises(SettingsError, match="whose seed differ"):
        ours(bundle, whole, LearningSettings(**{**FLEET.to_json(), "seed": 4}))
    with pytest.raises(DataError, match="--images"):
        ours(bundle, tmp_path, LearningSettings(devices=5000))
    with pytest.raises(SettingsError, match=r"the bundle has 0\.5, 1"):
        ours(bundle, tmp_path / "width", LearningSettings(devices=4, images=4, widths="0.3:1"))


def test_one_network_for_all_devices_leaves_nothing_of_one_to_the_next(
    bundle: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def network(start: Start) -> SplitNetwork:
        made.append(network_of(start.bundle))
        return made[-1]

    monkeypatch.setattr(Start, "network", network)
    ours(bundle, tmp_path / "new")
    assert len(made) > 16, "one a message"
    assert (tmp_path / "new" / "result.json").read_bytes() == (whole / "result.json").read_bytes()


@contextmanager
def started(words: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process and all that it starts, gone in the end."""
    env = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0"}
    with log.open("ab") as file:
        process = subprocess.Popen(words, cwd=ROOT, env=env, stdout=file, stderr=file, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(60)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def joined(words: Sequence[str], log: Path) -> Iterator[None]:
    """A machine that has joined a cluster. Ray gives it half a minute to start, and a busy one may need several."""
    for _ in range(8):
        with started(words, log) as process:
            until(lambda: "Ray runtime started" in log.read_text() or process.poll() is not None, "Ray has started")
            if process.poll() is None:
                yield
                return
    raise AssertionError(log.read_text()[-3000:])


def command(bundle: Path, out: Path, *more: str) -> list[str]:
    headwater = str(Path(sys.executable).parent / "headwater")
    return [headwater, "simulate", "learning", "digits", "--bundle", str(bundle), "--out", str(out), *FLAGS, *more]


def finished(process: subprocess.Popen[bytes], log: Path) -> str:
    assert process.wait(WITHIN_S) == 0, log.read_text()[-5000:]
    return log.read_text()


@needs_ray
@pytest.mark.slow
def test_killed_for_good_on_actors_it_ends_as_in_one_process(bundle: Path, whole: Path, tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    with started(command(bundle, out), log) as process:
        until(lambda: _rounds(out) >= 1 or process.poll() is not None, "a round has ended")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with started(command(bundle, out), log) as process:
        finished(process, log)
    assert (out / "result.json").read_bytes() == (whole / "result.json").read_bytes()


def _rounds(out: Path) -> int:
    try:
        return sum(each.phase == "closed" for each in survey(out).rounds)
    except Exception:  # noqa: BLE001 - it is not there yet, or being made
        return 0


@needs_ray
@pytest.mark.slow
def test_the_address_of_a_cluster_is_all_it_takes(bundle: Path, whole: Path, tmp_path: Path) -> None:
    port = free_ports(1)[0]
    ray, log, out = str(Path(sys.executable).parent / "ray"), tmp_path / "log", tmp_path / "out"
    head = (
        f"{ray} start --head --block --num-cpus 1 --include-dashboard false --node-ip-address 127.0.0.1 --port {port}"
    )
    other = f"{ray} start --block --num-cpus 1 --address 127.0.0.1:{port}"
    with started(head.split(), tmp_path / "head.log"):
        until(lambda: listens(port), "the head listens")
        cluster = command(bundle, out, "--ray-address", f"127.0.0.1:{port}")
        with joined(other.split(), tmp_path / "other.log"), started(cluster, log) as process:
            said = finished(process, log)
    assert re.search(r"2 actors on 2 machines", said), said
    assert (out / "result.json").read_bytes() == (whole / "result.json").read_bytes()
