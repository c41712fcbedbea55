"""Flower's own strategy and a small ClientApp over the grid without a network."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from headwater.compression.errors import LearningError
from headwater.protos.flower import acting_as, node_id
from headwater.server.federation.inprocess import InProcessGrid

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Add the node's step; count the calls in the state."""
    count = int(context.state["calls"]["n"]) if "calls" in context.state else 0
    context.state["calls"] = MetricRecord({"n": count + 1})
    values = message.content["arrays"].to_numpy_ndarrays()[0] + np.float32(context.node_config["step"])
    records = {"arrays": ArrayRecord({"w": Array(values)}), "metrics": MetricRecord({"num-examples": 1})}
    return Message(RecordDict(records), reply_to=message)


@app.evaluate()
def evaluate(message: Message, _: Context) -> Message:
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1, "loss": 0.5})}), reply_to=message)


def _grid(**behaviour: object) -> InProcessGrid:
    return InProcessGrid(app, {name: {"step": step} for name, step in (("a", 1.0), ("b", 3.0))}, **behaviour)  # type: ignore[arg-type]


def _message(device: str, group: str = "1") -> Message:
    content = RecordDict({"arrays": ArrayRecord({"w": Array(np.zeros(2, np.float32))})})
    with acting_as(1):
        return Message(content, node_id(device), "train", group_id=group)


def test_a_stock_strategy_runs_and_nodes_keep_their_state() -> None:
    grid = _grid()
    with acting_as(1):
        result = FedAvg().start(grid, ArrayRecord({"w": Array(np.zeros(3, np.float32))}), num_rounds=2)
    np.testing.assert_array_equal(result.arrays.to_numpy_ndarrays()[0], np.full(3, 4, np.float32))
    assert result.evaluate_metrics_clientapp[2]["loss"] == 0.5
    assert grid.named("a").context.state["calls"]["n"] == 2
    assert grid.named("a").bytes_up > 0
    assert [node.name for node in grid.get_nodes()] == [grid.nodes[key].name for key in grid.get_node_ids()]


def test_a_message_that_was_pushed_before_is_found_with_its_reply() -> None:
    grid = _grid()
    (first,) = grid.push_messages([_message("a")])
    (reply,) = grid.pull_messages([first])
    assert list(grid.push_messages([_message("a")])) == [first]
    assert grid.pull_messages([first])[0].content == reply.content
    assert grid.named("a").calls == 1
    assert reply.metadata.reply_to_message_id == first


def test_a_slow_node_answers_later_and_a_sleeping_one_when_it_wakes() -> None:
    grid = _grid()
    grid.named("a").pace = 3
    grid.named("b").awake = False
    keys = grid.push_messages([_message("a"), _message("b")])
    assert [len(grid.pull_messages(keys)) for _ in range(4)] == [0, 0, 1, 1]
    assert list(grid.get_node_ids()) == [node_id("a")]
    grid.named("b").awake = True
    assert len(grid.pull_messages(keys)) == 2


def test_an_app_that_raises_answers_with_the_error() -> None:
    def broken(_: Message, __: Context) -> Message:
        raise RuntimeError("no data")

    grid = InProcessGrid(broken, {"a": {}})
    (reply,) = grid.send_and_receive([_message("a")])
    assert "no data" in reply.error.reason


def test_a_hostile_node_changes_what_it_sends() -> None:
    def forged(reply: Message) -> Message:
        reply.content["metrics"]["num-examples"] = 10**6
        return reply

    grid = _grid(tamper={"b": forged})
    keys = grid.push_messages([_message(name) for name in "ab"])
    weights = [int(reply.content["metrics"]["num-examples"]) for reply in grid.pull_messages(keys)]
    assert weights == [1, 10**6]


def test_an_unknown_device_is_named_with_those_that_there_are() -> None:
    with pytest.raises(LearningError, match=r"'c'.*a, b"):
        _grid().named("c")
