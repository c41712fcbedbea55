"""The same apps under Flower's own `flwr run` and in its simulation engine, unchanged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="federated learning needs the extra [federated]")

from headwater.compression.errors import HeadwaterError
from headwater.server.federation.versions import latest
from tests import learnable
from tests.integration.flower import ROOT, WITHIN_S, Flower, make_app

NODES, ROUNDS = 2, 2
SERVER, CLIENT = "headwater.server.federation.app:app", "headwater.device.federated.app:app"

AVERAGED = """
import json
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

from tests.device.federated.counting_app import app

client = app  # Flower looks for an assignment
server = ServerApp()


@server.main()
def main(grid, context):
    told = context.run_config
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=told["nodes"], min_available_nodes=told["nodes"])
    arrays = ArrayRecord({"w": Array(np.arange(6, dtype=np.float32))})
    result = strategy.start(grid, arrays, num_rounds=told["rounds"])
    Path(told["out"]).write_text(json.dumps(result.arrays.to_numpy_ndarrays()[0].tolist()))
"""


def run(folder: Path, app: Path, nodes: list[str], ended: Callable[[], bool]) -> None:
    """`flwr run` over SuperNodes, to its end."""
    flower = Flower(folder, nodes)
    with flower.running():
        said = flower.run(app)
        assert ended(), f"{said}\n{flower.logs()}"


@pytest.mark.slow
def test_an_app_for_our_agent_runs_under_flwr_run(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    config = {"nodes": NODES, "rounds": ROUNDS, "out": str(out)}
    app = make_app(tmp_path / "app", "apps:server", "apps:client", config, AVERAGED)
    run(tmp_path, app, ["memory-bytes=1000000"] * NODES, out.exists)
    # The context goes on from round to round: 1 is added in the first, 2 in the second.
    assert json.loads(out.read_text()) == [value + 3.0 for value in range(6)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that can learn digits."""
    return learnable.bundle().save(tmp_path_factory.mktemp("bundle") / "digits")


def told(bundle: Path, state: Path) -> dict[str, str | int | float]:
    """The config of a run of our own ServerApp."""
    return {"bundle": str(bundle), "state": str(state), "rounds": ROUNDS, "least": NODES, "epochs": 0.5}


def node(bundle: Path, number: int) -> str:
    return f'bundle="{bundle}" data="digits" num-partitions=20 partition-alpha=1000.0 partition-id={number}'


def learnt(state: Path) -> int:
    """Rounds that have come to their end."""
    try:
        return latest(state).round
    except (HeadwaterError, OSError):
        return 0


@pytest.mark.slow
def test_our_own_apps_run_under_flwr_run(tmp_path: Path, bundle: Path) -> None:
    state = tmp_path / "rounds"
    config = told(bundle, state)
    app = make_app(tmp_path / "app", SERVER, CLIENT, config)
    run(tmp_path, app, [node(bundle, number) for number in range(NODES)], lambda: learnt(state) == ROUNDS)


SIMULATED = """
import sys
from flwr.app import Context, RecordDict
from flwr.serverapp import ServerApp
from flwr.simulation import run_simulation
from apps import client, main

server = ServerApp()


@server.main()
def simulated(grid, context):
    context.run_config = {"nodes": 2, "rounds": 2, "out": sys.argv[1]}
    main(grid, context)


resources, init = {"num_cpus": 1, "num_gpus": 0.0}, {"address": "local"}  # not a cluster that was once on this machine
run_simulation(server, client, num_supernodes=2, backend_config={"client_resources": resources, "init_args": init})
"""


@pytest.mark.slow
def test_an_app_for_our_agent_runs_in_the_simulation_engine(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Flower's simulation engine needs flwr[simulation], which is in no extra of ours")
    out = tmp_path / "out.json"
    (tmp_path / "apps.py").write_text(AVERAGED)
    (tmp_path / "simulate.py").write_text(SIMULATED)
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, "FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "simulate.py", str(out)]
    done = subprocess.run(command, cwd=tmp_path, env=env, check=False, capture_output=True, text=True, timeout=WITHIN_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(out.read_text()) == [value + 3.0 for value in range(6)]
