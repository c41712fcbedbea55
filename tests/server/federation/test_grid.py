"""The grid: Flower's own strategies over real streams to devices by hand; kills on this side; messages that wait."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, FedMedian

from headwater.compression.errors import LearningError
from headwater.protos.flower import Parcel, call, node_id, pack, unpack
from headwater.server.federation.grid import StreamGrid
from headwater.server.mail.records import Device
from tests.server.edges import Edge, edge, until
from tests.server.mail.couriers import Courier, mailbox_of

CAM, OTHER = node_id("cam"), node_id("other")
app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Adds its own number to all, and remembers how often it was asked."""
    own = 1.0 if context.node_id == CAM else 3.0
    context.state["asked"] = ConfigRecord({"times": _times(context) + 1})
    arrays = [array.numpy() + own for array in message.content.array_records["arrays"].values()]
    metrics = MetricRecord({"num-examples": 1, "loss": own})
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    return Message(
        RecordDict({"metrics": MetricRecord({"num-examples": 1, "times": _times(context)})}), reply_to=message
    )


def _times(context: Context) -> int:
    record = context.state.config_records.get("asked", ConfigRecord({"times": 0}))
    times = record["times"]
    assert isinstance(times, int)
    return times


class Worker(Courier):
    """A device that answers every offer by a ClientApp."""

    def __init__(self, edge: Edge, device: str, folder: Path) -> None:
        super().__init__(edge, device)
        self.folder = folder / device
        self.context = Context(1, node_id(device), {}, RecordDict(), {})
        self.answered: list[str] = []

    async def work(self) -> None:
        while True:
            await self.answer_one()

    async def answer_one(self) -> None:
        message = await self.call.read()
        offer = message.offer
        await self.say(offer, accepted=True)
        asked = unpack(Parcel(offer.envelope, await self.fetch(offer, self.folder)))
        self.answered.append(asked.metadata.message_type)
        reply = pack(call(app, asked, self.context))
        closing = await self.push(offer, reply.content, reply.envelope)
        assert not closing.detail


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


async def with_workers(state: Path, tmp_path: Path, rounds: Callable[[], object]) -> list[Worker]:
    """Run something in a thread, as another process would, while two devices work."""
    async with (
        edge(state=state) as running,
        Worker(running, "cam", tmp_path) as cam,
        Worker(running, "other", tmp_path) as other,
    ):
        await until(lambda: sum(one.connected for one in mailbox_of(running).devices()) == 2)
        working = [asyncio.create_task(worker.work()) for worker in (cam, other)]
        running_rounds = asyncio.create_task(asyncio.to_thread(rounds))
        done, _ = await asyncio.wait([*working, running_rounds], return_when=asyncio.FIRST_COMPLETED)
        for one in done:
            one.result()
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
    return [cam, other]


def arrays(values: int = 3) -> ArrayRecord:
    return ArrayRecord({"w": Array(np.zeros(values, np.float32))})


@pytest.mark.parametrize("strategy", [FedAvg, FedMedian])
async def test_flowers_own_strategies_run_on_it(state: Path, tmp_path: Path, strategy: type[FedAvg]) -> None:
    def rounds() -> None:
        with StreamGrid(state) as grid:
            result = strategy(min_train_nodes=2, min_available_nodes=2).start(grid, arrays(), num_rounds=3, timeout=60)
        np.testing.assert_allclose(result.arrays.to_numpy_ndarrays()[0], [6.0, 6.0, 6.0])
        assert [metrics["loss"] for metrics in result.train_metrics_clientapp.values()] == [2.0] * 3
        assert [metrics["times"] for metrics in result.evaluate_metrics_clientapp.values()] == [1, 2, 3]

    workers = await with_workers(state, tmp_path, rounds)
    assert [worker.answered for worker in workers] == [["train", "evaluate"] * 3] * 2


async def test_a_run_that_begins_again_finds_what_it_pushed_and_its_replies(state: Path, tmp_path: Path) -> None:
    """As after a kill: a new grid pushes the very same rounds, and no device is asked anything twice."""

    def rounds() -> None:
        random.seed(1)  # whom FedAvg takes, and in which order
        for number in (2, 3):
            with StreamGrid(state) as grid:
                result = FedAvg(fraction_evaluate=0.0).start(grid, arrays(), num_rounds=number, timeout=60)
        np.testing.assert_allclose(result.arrays.to_numpy_ndarrays()[0], [6.0, 6.0, 6.0])
        with StreamGrid(state, run_id=2) as grid:
            FedAvg(fraction_evaluate=0.0).start(grid, arrays(), num_rounds=1, timeout=60)

    workers = await with_workers(state, tmp_path, rounds)
    assert [worker.answered for worker in workers] == [["train"] * 4] * 2


def known(grid: StreamGrid, *names: str, connected: bool = True) -> None:
    for name in names:
        grid.mailbox.connected(Device(node_id(name), name, connected, ("federated",), b"", "", 0))


def question(node: int = CAM, group: str = "1", ttl: float = 60.0) -> Message:
    return Message(RecordDict({"config": ConfigRecord({"x": 1})}), node, "query", group_id=group, ttl=ttl)


def test_nodes_are_the_devices_that_are_there_and_take_part(state: Path) -> None:
    with StreamGrid(state) as grid:
        known(grid, "cam", "third")
        known(grid, "other", connected=False)
        grid.mailbox.connected(Device(5, "plain", True, (), b"", "", 0))  # noqa: FBT003 - as it stands in the record
        assert sorted(grid.get_node_ids()) == sorted([CAM, node_id("third")])
        assert sorted(one.name for one in grid.get_nodes()) == ["cam", "third"]
        grid.push_messages([question(OTHER)])  # it waits
        with pytest.raises(LearningError, match="there is no node 77; connected were: cam"):
            grid.push_messages([question(77)])


def test_a_message_of_a_group_is_one_and_one_without_is_one_each_time(state: Path) -> None:
    with StreamGrid(state) as grid:
        known(grid, "cam")
        assert grid.push_messages([question()]) == grid.push_messages([question()])
        assert grid.push_messages([question()]) != grid.push_messages([question(group="2")])
        loose = [grid.push_messages([question(group="")])[0] for _ in range(3)]
        assert len(set(loose)) == 3
    with StreamGrid(state) as again:
        assert [again.push_messages([question(group="")])[0] for _ in range(3)] == loose


def test_records_that_messages_share_are_one_blob(state: Path) -> None:
    with StreamGrid(state) as grid:
        known(grid, "cam", "other")
        shared = RecordDict({"arrays": arrays(1000)})
        grid.push_messages([Message(shared, node, "train") for node in (CAM, OTHER)])
        assert len(list(grid.mailbox.blobs.folder.iterdir())) == 1


def reply_to(
    grid: StreamGrid, key: str, content: bytes | None = None, lie: Callable[[Message], None] | None = None
) -> None:
    """As the serving process does when a device has sent one."""
    (offer,) = grid.mailbox.find([key])
    asked = unpack(Parcel(offer.envelope, grid.mailbox.blobs.read(offer.sha256)))
    reply = Message(RecordDict({"m": MetricRecord({"n": 1})}), reply_to=asked)
    if lie is not None:
        lie(reply)
    parcel = pack(reply)
    sha256 = grid.mailbox.put(parcel.content if content is None else content)
    assert grid.mailbox.replied(offer.number, offer.node, parcel.envelope, sha256)


def test_what_cannot_be_had_is_an_error_reply(state: Path) -> None:
    with StreamGrid(state, run_id=9) as grid:
        known(grid, "cam")
        refused, late, damaged, gone = grid.push_messages(
            [question(group=str(number), ttl=0.001 if number == 1 else 60.0) for number in range(4)]
        )
        (offer,) = grid.mailbox.find([refused])
        grid.mailbox.refused(offer.number, CAM, "on battery")
        reply_to(grid, damaged, content=b"\x00rubbish")
        reply_to(grid, gone, content=b"\x00")
        grid.mailbox.blobs.forget(grid.mailbox.find([gone])[0].reply_sha256)
        while len(replies := grid.pull_messages([refused, late, damaged, gone])) < 4:
            grid.wait(0.01)  # until its thousandth of a second has passed
    assert [reply.error.code for reply in replies] == [5, 3, 4, 4]
    reasons = [reply.error.reason or "" for reply in replies]
    assert reasons[0] == "on battery"
    assert "no answer came" in reasons[1]
    assert "no message of Flower" in reasons[2]
    assert "is not there" in reasons[3]


def test_a_reply_says_who_it_is_from_whatever_the_device_wrote(state: Path) -> None:
    def lie(reply: Message) -> None:
        reply.metadata.__dict__.update(_src_node_id=OTHER, _reply_to_message_id="x", _run_id=1, _group_id="99")

    with StreamGrid(state, run_id=9) as grid:
        known(grid, "cam")
        (key,) = grid.push_messages([question()])
        reply_to(grid, key, lie=lie)
        (reply,) = grid.send_and_receive([question()], timeout=0)
    about = reply.metadata
    assert (about.src_node_id, about.reply_to_message_id, about.run_id, about.group_id) == (CAM, key, 9, "1")


def test_waiting_ends_with_the_timeout_and_what_came_is_in_the_order_of_the_messages(state: Path) -> None:
    with StreamGrid(state) as grid:
        known(grid, "cam", "other", "third")
        messages = [question(node) for node in (OTHER, CAM, node_id("third"))]
        keys = grid.push_messages(messages)
        for key in (keys[1], keys[0]):
            reply_to(grid, key)
        replies = grid.send_and_receive(messages, timeout=0.01)
        assert [reply.metadata.src_node_id for reply in replies] == [OTHER, CAM]


def test_a_round_is_forgotten_when_its_strategy_says_so(state: Path) -> None:
    with StreamGrid(state) as grid:
        known(grid, "cam")
        keys = grid.push_messages([question(), question(group="2")])
        grid.forget("1")
        assert [one.group for one in grid.mailbox.find(keys)] == ["2"]
        grid.withdraw(keys, "enough")
        (reply,) = grid.pull_messages(keys)
        assert reply.error.reason == "enough"
        grid.forget()
        assert grid.mailbox.find(keys) == []
