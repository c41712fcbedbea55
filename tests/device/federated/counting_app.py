"""A ClientApp of NumPy alone, that counts what it is asked, and misbehaves when it is told to."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Add to each array a number by chance, and how often this node has trained in this run."""
    told = message.content.config_records.get("do", ConfigRecord())
    _misbehave(str(told.get("what", "")), Path(str(told.get("path", ""))))
    steps = int(context.state.metric_records.get("steps", MetricRecord({"count": 0}))["count"]) + 1  # type: ignore[arg-type]
    context.state["steps"] = MetricRecord({"count": steps})
    arrays = [array + steps for array in message.content.array_records["arrays"].to_numpy_ndarrays()]
    chance = MetricRecord({"python": random.random(), "numpy": np.random.rand(), "num-examples": 1})  # noqa: NPY002
    about = ConfigRecord({key: value for key, value in context.node_config.items() if key != "memory-bytes"})
    reply = RecordDict({"arrays": ArrayRecord(arrays), "metrics": chance, "about": about})
    print("steps", steps)
    return Message(reply, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Tell the sum of all arrays."""
    del context
    total = sum(float(array.sum()) for array in message.content.array_records["arrays"].to_numpy_ndarrays())
    return Message(RecordDict({"metrics": MetricRecord({"loss": total, "num-examples": 1})}), reply_to=message)


def _misbehave(what: str, path: Path) -> None:
    match what:
        case "raise":
            raise ValueError("the app does not want to")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "die once" if not path.exists():
            path.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        case "abort":
            print("this is the end", file=sys.stderr, flush=True)
            os._exit(3)
        case "eat":
            np.ones(1 << 30)
        case "spin":
            while True:
                pass
        case "wait":  # until somebody makes the file
            Path(f"{path}.begun").touch()
            while not path.exists():
                time.sleep(0.01)
