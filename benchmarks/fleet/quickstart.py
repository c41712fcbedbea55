"""Flower's quick-start on the model and the data of a simulated fleet: a stock ClientApp, FedAvg, `run_simulation`.

As in Flower's PyTorch quick-start a client makes the model, puts the arrays that came into it, trains it with plain SGD
on its own share of the data, and sends all arrays back as float32. The share is that of the virtual device of the same
number. The data set is opened once in each actor.

    python -m benchmarks.fleet.quickstart BUNDLE DEVICES IMAGES ROUNDS OUT
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from torch.nn import functional

from benchmarks.round_apps import TimedFedAvg
from headwater.compression.bundle import Bundle
from headwater.compression.learning.arrays import arrays_of
from headwater.compression.learning.local_data import local_data
from headwater.compression.learning.reading import network_of

RATE, BATCH = 1e-4, 16
FIRST = 0.1
"""Share of the devices in the first round."""
client, server = ClientApp(), ServerApp()
_told = os.environ.get("HEADWATER_QUICKSTART", "")


@lru_cache(maxsize=1)
def bundle() -> Bundle:
    return Bundle.load(Path(_told.partition(":")[2]))


@client.train()
def train(message: Message, context: Context) -> Message:
    torch.set_num_threads(1)
    config = {**context.node_config, "data": "digits", "partition-images": int(_told.partition(":")[0])}
    samples, network = local_data(bundle().manifest, config).train, network_of(bundle())
    network.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict(), strict=False)
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE)
    task = network.tasks[0]
    for indices in samples.batches(BATCH, torch.Generator().manual_seed(0)):
        optimizer.zero_grad()
        logits = network(samples.images[indices], 1.0, -1)[0]
        functional.cross_entropy(logits, samples.labels[task][indices]).backward()
        optimizer.step()
    arrays = ArrayRecord({name: Array(array) for name, array in arrays_of(network).items()})
    content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": len(samples)})})
    return Message(content, reply_to=message)


class QuickStart(TimedFedAvg):
    """Asks all devices, but in the first round, which loads the app, a few."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self.fraction_train = FIRST if server_round == 1 else 1.0
        return super().configure_train(server_round, arrays, config, grid)


@server.main()
def run(grid: Grid, _: Context) -> None:
    """Note the seconds of each round."""
    devices, rounds, out = int(sys.argv[2]), int(sys.argv[4]), Path(sys.argv[5])
    strategy = QuickStart(devices)
    strategy.min_train_nodes = 2
    initial = {name: Array(array) for name, array in arrays_of(network_of(bundle())).items()}
    strategy.start(grid, ArrayRecord(initial), num_rounds=rounds)
    out.write_text(json.dumps(strategy.seconds), encoding="utf-8")


def main() -> None:
    """Run it; the seconds of each round go to OUT."""
    from flwr.simulation import run_simulation

    backend = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": {"address": "local"}}
    run_simulation(server, client, num_supernodes=int(sys.argv[2]), backend_config=backend)  # type: ignore[arg-type]


if __name__ == "__main__":
    os.environ["HEADWATER_QUICKSTART"] = f"{sys.argv[3]}:{sys.argv[1]}"
    # Under its own name, so that actors find it.
    importlib.import_module("benchmarks.fleet.quickstart").main()
