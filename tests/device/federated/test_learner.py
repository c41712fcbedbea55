"""From an offer to the reply at the server: link, courier, disk and a real training process, against a fake edge."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from headwater.compression.errors import SettingsError
from headwater.device.courier import Courier
from headwater.device.federated import learner as module
from headwater.device.federated.budget import Budget
from headwater.device.federated.learner import Learner
from headwater.device.federated.trainer import Trainer
from headwater.device.link import Link
from headwater.device.link_options import LinkOptions
from headwater.device.settings import DeviceSettings
from headwater.protos import edge_pb2 as pb
from headwater.protos.flower import Parcel, unpack
from tests.device.exchanges import ExchangingEdge
from tests.device.fake_edge import serving
from tests.device.federated.questions import APP, InlineTrainer, offer, question

FREE = Budget(1 << 28, None, on_battery=True, max_celsius=None)


class Device:
    """Link and learner as the agent has them; it can be left and entered again."""

    def __init__(self, edge: ExchangingEdge, folder: Path, budget: Budget, trainer: Trainer | None) -> None:
        self.edge, self.folder, self.budget, self.trainer = edge, folder, budget, trainer
        (folder / "data").mkdir(exist_ok=True)

    @asynccontextmanager
    async def up(self) -> AsyncIterator[Learner]:
        state, data = self.folder / "state", self.folder / "data"
        settings = DeviceSettings(name="cam-1", state=state, train_data=data, train_app=APP, train_nice=0)
        options = LinkOptions("cam-1", b"b" * 32, first_pause_s=0.01, longest_pause_s=0.05)
        link = Link(f"127.0.0.1:{self.edge.port}", options, on_offer=lambda one: learner.offered(one))  # noqa: PLW0108
        bundle = Path("bundles/solar")
        learner = Learner(settings, link, Courier(link), lambda: bundle, trainer=self.trainer, budget=self.budget)
        async with learner, link:
            await link.wait_connected()
            yield learner


@asynccontextmanager
async def fleet(
    folder: Path, budget: Budget = FREE, trainer: Trainer | None = None
) -> AsyncIterator[tuple[ExchangingEdge, Device]]:
    """Without a trainer it is a real one, in a process of its own."""
    edge = ExchangingEdge()
    async with asyncio.timeout(300), serving(edge):
        yield edge, Device(edge, folder, budget, trainer)


async def ask(edge: ExchangingEdge, parcel: Parcel, number: int = 1) -> None:
    edge.put(parcel.content)
    await edge.send(pb.ServerMessage(offer=offer(parcel, number)))


def said(edge: ExchangingEdge) -> list[tuple[int, bool, str]]:
    replies = [each.offer_reply for each in edge.others if each.WhichOneof("kind") == "offer_reply"]
    return [(each.offer, each.accepted, each.reason) for each in replies]


def steps(edge: ExchangingEdge) -> list[float]:
    """How often the node had trained, as each upload tells."""
    messages = [unpack(Parcel(opening.envelope, data)) for opening, data in edge.uploads]
    return [float(each.content.array_records["arrays"].to_numpy_ndarrays()[0][0]) for each in messages]


async def gone(path: Path) -> None:
    while not path.exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
        await asyncio.sleep(0.01)


async def test_a_message_is_answered_and_the_next_one_goes_on_from_its_context(tmp_path: Path) -> None:
    async with fleet(tmp_path) as (edge, device), device.up() as learner:
        for number in (1, 2):
            await ask(edge, question(number=number), number)
        await edge.until(lambda: len(edge.uploads) == 2)
    assert steps(edge) == [1.0, 2.0]
    assert [(opening.device, opening.offer) for opening, _ in edge.uploads] == [("cam-1", 1), ("cam-1", 2)]
    assert sorted(said(edge)) == [(1, True, ""), (2, True, "")]
    assert (learner.counts.offered, learner.counts.answered, learner.counts.failed) == (2, 2, 0)
    reply = unpack(Parcel(edge.uploads[0][0].envelope, edge.uploads[0][1]))
    assert reply.metadata.reply_to_message_id == "message-1"
    assert dict(reply.content.config_records["about"]) == {
        "device": "cam-1",
        "bundle": "bundles/solar",
        "data": str(tmp_path / "data"),
        "seconds": 0.0,
    }
    assert np.array_equal(reply.content.array_records["arrays"].to_numpy_ndarrays()[0], np.arange(6) + 1)


async def test_a_message_that_is_offered_again_is_not_trained_again(tmp_path: Path) -> None:
    async with fleet(tmp_path, trainer=InlineTrainer()) as (edge, device):
        parcel = question()
        for number in (1, 2):  # as a server would that never noted the first reply
            async with device.up():
                await ask(edge, parcel, number)
                await edge.until(lambda number=number: len(edge.uploads) == number)  # type: ignore[misc]
        async with device.up():
            await ask(edge, question(number=2), 3)
            await edge.until(lambda: len(edge.uploads) == 3)
    assert steps(edge) == [1.0, 1.0, 2.0]
    assert edge.uploads[0][1] == edge.uploads[1][1]
    assert [opening.offer for opening, _ in edge.uploads] == [1, 2, 3]


async def test_a_child_that_is_killed_is_replaced_and_the_answer_is_the_same(tmp_path: Path) -> None:
    async with fleet(tmp_path) as (edge, device), device.up() as learner:
        gate = tmp_path / "gate"
        await ask(edge, question("wait", path=str(gate)))
        await gone(Path(f"{gate}.begun"))
        assert learner.trainer._process is not None
        os.kill(learner.trainer._process.pid, signal.SIGKILL)
        gate.touch()
        await edge.until(lambda: bool(edge.uploads))
    assert steps(edge) == [1.0]
    assert [accepted for _, accepted, _ in said(edge)] == [True]


async def test_a_message_that_kills_every_child_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_DEATHS", 2)
    async with fleet(tmp_path) as (edge, device), device.up():
        await ask(edge, question("die"), 8)
        await edge.until(lambda: len(said(edge)) == 2)
        assert said(edge)[1] == (8, False, "the training process ended with signal 9")
        await ask(edge, question(number=2), 9)
        await edge.until(lambda: bool(edge.uploads))
    assert steps(edge) == [1.0], "what died has left nothing in the context"


async def test_a_refusal_is_told_again_when_it_is_offered_again(tmp_path: Path) -> None:
    parcel = Parcel(question().envelope, b"\x07no message")
    async with fleet(tmp_path, trainer=InlineTrainer()) as (edge, device):
        for number in (1, 2):
            async with device.up():
                await ask(edge, parcel, number)
                await edge.until(lambda number=number: any(one[:2] == (number, False) for one in said(edge)))  # type: ignore[misc]
    assert "no message of Flower" in said(edge)[-1][2]
    assert not edge.uploads


async def test_a_message_whose_lifetime_is_over_is_left(tmp_path: Path) -> None:
    async with fleet(tmp_path, trainer=InlineTrainer()) as (edge, device), device.up():
        parcel = question("wait", path=str(tmp_path / "never"))
        edge.put(parcel.content)
        await edge.send(pb.ServerMessage(offer=offer(parcel, 4, valid_s=0.001)))
        await edge.until(lambda: len(said(edge)) == 2)
    assert said(edge)[1][:2] == (4, False)
    assert "its lifetime was over before it was" in said(edge)[1][2]


async def test_a_reply_that_the_server_does_not_want_is_no_trouble(tmp_path: Path) -> None:
    async with fleet(tmp_path, trainer=InlineTrainer()) as (edge, device), device.up():
        edge.close = pb.TransferClose(status=pb.STATUS_EXPIRED, detail="withdrawn")
        await ask(edge, question())
        await edge.until(lambda: edge.closed == 1)
        edge.close = pb.TransferClose(status=pb.STATUS_OK)
        await ask(edge, question(number=2), 2)
        await edge.until(lambda: bool(edge.uploads))
    assert steps(edge) == [2.0]


async def test_training_waits_while_the_device_is_on_its_battery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    supply = tmp_path / "sys/class/power_supply/BAT0"
    supply.mkdir(parents=True)
    (supply / "type").write_text("Battery")
    (supply / "status").write_text("Discharging")
    budget = Budget(1 << 28, None, on_battery=False, max_celsius=None, system=tmp_path)
    trainer = InlineTrainer()
    async with fleet(tmp_path, budget, trainer) as (edge, device), device.up():
        looks = count_looks(monkeypatch)
        await ask(edge, question())
        while len(looks) < 3:  # noqa: ASYNC110 - the learner's own looks, of which no event tells
            await asyncio.sleep(0.01)
        assert not trainer.jobs
        (supply / "status").write_text("Charging")
        await edge.until(lambda: bool(edge.uploads))


def count_looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    looks: list[str] = []
    original: Callable[..., str] = Budget.why_not

    def why_not(self: Budget, *, waiting: bool) -> str:
        looks.append(original(self, waiting=waiting))
        return looks[-1]

    monkeypatch.setattr(Budget, "why_not", why_not)
    return looks


async def test_an_app_whose_package_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    settings = DeviceSettings(state=tmp_path, train_data=tmp_path, train_app="nowhere.client:app")
    link = Link("127.0.0.1:1", LinkOptions("cam-1", b"b" * 32))
    with pytest.raises(SettingsError, match="needs the package nowhere, which is not here"):
        Learner(settings, link, Courier(link), lambda: tmp_path)


@pytest.mark.parametrize("takes", [True, False])
async def test_a_disk_that_takes_nothing_costs_the_rounds_and_not_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, takes: bool
) -> None:
    monkeypatch.setattr(module, "refuses", lambda _: not takes)
    link = Link("127.0.0.1:1", LinkOptions("cam-1", b"b" * 32))
    settings = DeviceSettings(state=tmp_path, train_data=tmp_path, train_app=APP)
    made = Learner.of(settings, link, Courier(link), lambda: tmp_path)
    assert (made is not None) is takes
    assert ("no rounds until the agent is started again" in caplog.text) is not takes
