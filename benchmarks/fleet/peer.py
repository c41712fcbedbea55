"""The peer: Flower's FedAvg, dense float32 arrays both ways, every device at full width and awake.

Strategy, grid protocol and messages are Flower's; what a device does with its pictures in a round is the very training
that ours does, so that the two differ in nothing but how rounds are made of it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from benchmarks.fleet.curve import Curve, Watch
from headwater.compression.learning.arrays import arrays_of, load
from headwater.compression.learning.local_data import local_data
from headwater.compression.learning.optimizers import name_of
from headwater.compression.learning.plan import Plan
from headwater.compression.learning.terms import Terms
from headwater.compression.learning.train import train
from headwater.device.federated.holding import start_of
from headwater.protos.flower import acting_as
from headwater.server.federation.inprocess import InProcessGrid

if TYPE_CHECKING:
    from benchmarks.fleet.ground import Ground
    from headwater.server.federation.settings import RoundSettings

logging.getLogger("flwr").setLevel(logging.ERROR)  # its own words of every round
app = ClientApp()
OF_A_STEP = ("epochs", "batch", "rate", "decay", "optimizer", "distil", "logit_adjustment", "seed")
"""Settings of ours that the peer has too."""


@app.train()
def learn(message: Message, context: Context) -> Message:
    """Train all of the network, at full width, and send it back."""
    torch.set_num_threads(1)
    told, config = message.content.config_records["config"], context.node_config
    start = start_of(str(config["bundle"]))
    network = start.network()
    load(network, {name: array.numpy() for name, array in message.content.array_records["arrays"].items()})
    plan = Plan(
        epochs=float(told["epochs"]),
        batch=int(told["batch"]),
        rate=float(told["rate"]) * float(told["decay"]) ** (int(told["server-round"]) - 1),
        optimizer=name_of(str(told["optimizer"])),
        distil=float(told["distil"]),
        logit_adjustment=float(told["logit_adjustment"]),
        seed=int(told["seed"]) * 1_000_003 + int(told["server-round"]),
    )
    trained = train(network, local_data(start.bundle.manifest, config).train, plan, Terms.of(start.bundle.manifest))
    arrays = ArrayRecord({name: Array(array) for name, array in arrays_of(network).items()})
    metrics = MetricRecord({"num-examples": int(trained.metrics["num-examples"])})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


def fedavg(ground: Ground, settings: RoundSettings) -> Curve:
    """Run it; what each round brought and cost."""
    nodes = {name: {"bundle": str(ground.bundle_path), "data": str(ground.data(name))} for name in ground.names}
    grid, start = InProcessGrid(app, nodes), start_of(str(ground.bundle_path))
    watch = Watch(grid, ground)
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=len(nodes), min_available_nodes=len(nodes))
    told = {key: getattr(settings, key) for key in OF_A_STEP}

    def measure(_: int, arrays: ArrayRecord) -> MetricRecord:
        return MetricRecord(watch.measure({name: array.numpy() for name, array in arrays.items()}))

    first = ArrayRecord({name: Array(array) for name, array in start.arrays.items()})
    with acting_as(grid.run.run_id):
        strategy.start(grid, first, settings.rounds, train_config=ConfigRecord(told), evaluate_fn=measure)
    return watch.curve
