"""A ClientApp for the integration tests: it adds the node's number to all arrays, and can be held by a file."""

from __future__ import annotations

import time
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Each call leaves a mark in the data's folder; while there is a file `hold`, it waits."""
    data = Path(str(context.node_config["data"]))
    own = float((data / "number").read_text(encoding="utf-8"))
    steps = context.state.config_records.get("own", ConfigRecord({"steps": 0}))
    number = steps["steps"]
    assert isinstance(number, int)
    context.state["own"] = ConfigRecord({"steps": number + 1})
    with (data / "calls").open("a", encoding="utf-8") as calls:
        calls.write(f"{message.metadata.message_id}\n")
    while (data / "hold").exists():
        time.sleep(0.01)
    arrays = [array.numpy() + own for array in message.content.array_records["arrays"].values()]
    metrics = MetricRecord({"num-examples": 1, "steps": number + 1})
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message)
