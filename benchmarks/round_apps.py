"""A round that trains nothing, for rounds.py: Flower's FedAvg with a clock, and an app that makes numbers larger."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

LARGER = np.float32(1.01)
"""By a factor and not by a summand, after which numbers would have fewer digits than weights have, and be packed."""

client = ClientApp()
server = ServerApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    """Nothing is learnt."""
    del context
    arrays = ArrayRecord([array.numpy() * LARGER for array in message.content.array_records["arrays"].values()])
    return Message(RecordDict({"arrays": arrays, "m": MetricRecord({"num-examples": 1})}), reply_to=message)


@server.main()
def run(grid: Grid, context: Context) -> None:
    """As `flwr run` starts it."""
    told = context.run_config
    seconds = timed_rounds(grid, int(told["nodes"]), int(told["floats"]), int(told["rounds"]))
    Path(str(told["out"])).write_text(json.dumps(seconds), encoding="utf-8")


class TimedFedAvg(FedAvg):
    """Notes how long each round takes, from its making to its end."""

    def __init__(self, nodes: int) -> None:
        super().__init__(fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes)
        self.seconds: list[float] = []
        self._began = 0.0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self._began = time.perf_counter()
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        arrays, metrics = super().aggregate_train(server_round, replies)
        self.seconds.append(time.perf_counter() - self._began)
        assert arrays is not None
        return arrays, metrics


def timed_rounds(grid: Grid, nodes: int, floats: int, rounds: int, seed: int = 0) -> list[float]:
    """Run rounds, from other numbers with another seed; the seconds of each. The result is asserted."""
    values = np.random.default_rng(seed).normal(size=floats).astype(np.float32)
    strategy = TimedFedAvg(nodes)
    result = strategy.start(grid, ArrayRecord([values]), num_rounds=rounds)
    np.testing.assert_allclose(result.arrays.to_numpy_ndarrays()[0], values * LARGER**rounds, rtol=1e-4)
    return strategy.seconds
