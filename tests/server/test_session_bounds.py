"""What a device can cost the server: slow readers, floods, answers that are remembered, sessions."""

from __future__ import annotations

import asyncio
import gc

import grpc
import pytest

from headwater.protos import edge_pb2 as pb
from headwater.server.session import Outbox, Session, Sessions
from tests.server.edges import TIMEOUT_S, Talk, edge


class Stuck:
    """A device that reads nothing until it is let."""

    def __init__(self) -> None:
        self.reads = asyncio.Event()
        self.got: list[pb.ServerMessage] = []

    async def write(self, message: pb.ServerMessage) -> None:
        await self.reads.wait()
        self.got.append(message)


async def test_a_slow_reader_holds_its_own_messages_back() -> None:
    outbox, device = Outbox(limit=3, most_bytes=1 << 20), Stuck()
    running = asyncio.create_task(outbox.run(device.write))
    for _ in range(3):
        outbox.put(pb.ServerMessage())
    assert outbox.full
    waiting = asyncio.create_task(outbox.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    device.reads.set()
    await asyncio.wait_for(waiting, TIMEOUT_S)
    outbox.put(pb.ServerMessage())
    outbox.close()
    await asyncio.wait_for(running, TIMEOUT_S)
    assert len(device.got) == 4


async def test_a_device_that_floods_and_never_reads_costs_a_bounded_memory() -> None:
    async with edge(max_in_flight=4) as server, Talk(server) as talk:
        flood = [pb.DeviceMessage(heartbeat=pb.Heartbeat(sent_unix_ms=1))] * 3
        for number in range(1, 200):
            await talk.frame(number, data=b"nonsense")
            for message in flood:
                await talk.send(message)
        (conversation,) = server.server.service._conversations
        assert len(conversation.outbox) <= 9
        for _ in range(199 * 4):
            assert await talk.read() is not grpc.aio.EOF


@pytest.mark.parametrize("limit", [1, 4])
async def test_sessions_are_forgotten_oldest_first_but_not_while_connected(limit: int) -> None:
    async with edge() as server:
        service = server.server.service
        allowance = service.door.allowances.of("anybody")
        make = lambda name, its: Session(name, service.admission, server.server.metrics, its)  # noqa: E731
        sessions = Sessions(make, limit)
        connected = sessions.open("connected", 1, allowance)
        connected.attach(Outbox(1, 1 << 20), 0)
        opened = [sessions.open(f"device-{number}", 1, allowance) for number in range(10)]
        assert len(sessions) == limit or limit == 1
        assert sessions.open("connected", 1, allowance) is connected
        assert sessions.open("device-0", 1, allowance) is not opened[0]


async def test_an_agent_that_begins_anew_has_the_sessions_of_its_device_forgotten_that_are_not_open() -> None:
    async with edge() as server:
        service = server.server.service
        allowance = service.door.allowances.of("camera")
        sessions = Sessions(lambda name, its: Session(name, service.admission, server.server.metrics, its), 8)
        first, other = sessions.open("camera", 1, allowance), sessions.open("camera", 2, allowance)
        other.attach(Outbox(1, 1 << 20), 0)
        assert sessions.open("camera", 1, allowance) is not first, "it was not open when the other one began"
        for number in range(3, 20):  # killed again and again
            last = sessions.open("camera", number, allowance)
        assert list(sessions) == [other, last]
        assert sessions.open("camera", 2, allowance) is other
        assert sessions.open("camera", 19, allowance) is last, "coming back is not beginning anew"


async def test_a_remembered_answer_takes_its_bytes_and_no_message() -> None:
    def messages() -> int:
        gc.collect()
        return sum(type(one) is pb.ServerMessage for one in gc.get_objects())

    async with edge(max_in_flight=64) as server, Talk(server) as talk:
        await talk.frame(1)
        await talk.answer()
        before = messages()
        for number in range(2, 42):
            await talk.frame(number)
            await talk.answer()
        (session,) = server.server.service._sessions
        assert len(session._answered) == 41
        assert messages() - before < 10, "each took 1.7 kB beside its bytes, 64 of them for each run of each device"
