"""Peers that flood, stall, or come all at once: what others are answered, and what is left when they have gone.

Order and counts are asserted, never speed: the ratios are figures of benchmarks/overload.py.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import random
import socket
from collections import Counter
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import pytest

from benchmarks.devices import Device
from headwater.device.link import Link
from headwater.device.link_options import LinkOptions
from headwater.protos import edge_pb2 as pb
from headwater.server.access import options
from headwater.server.access.limits import Turnstile
from tests import tiny
from tests.security.leaks import grown
from tests.server.edges import TIMEOUT_S, Edge, Talk, assert_answers, edge, until

SLOW = 50
FRAMES = 20


def address(running: Edge) -> tuple[str, int]:
    host, port = running.addresses.grpc.rsplit(":", 1)
    return host, int(port)


def frame(sequence: int, **fields: object) -> bytes:
    """The message with the frame of this number."""
    data = tiny.bundle().frames().pack(tiny.frame(tiny.bundle(), sequence, 0))
    message = pb.DeviceMessage(frame=pb.FeatureFrame(sequence=sequence, data=data, **fields))  # type: ignore[arg-type]
    return message.SerializeToString()


async def slow_consumer(running: Edge, name: str, frames: int) -> Device:
    """A device that has sent frames and takes no more than 300 bytes of what it is told."""
    device = await asyncio.to_thread(Device, *address(running), name, tiny.bundle().id, 300)
    device.send(*(frame(number) for number in range(1, frames + 1)))
    return device


async def all_answered(talk: Talk) -> None:
    """Send frames and have every one of them answered rightly."""
    for number in range(1, FRAMES + 1):
        await talk.frame(number)
    answers = {answer.sequence: answer for answer in [await talk.answer() for _ in range(FRAMES)]}
    for number in range(1, FRAMES + 1):
        assert_answers(answers[number], talk.bundle, number, 0)


# ---------------------------------------------------------------- slow peers


async def test_beside_fifty_that_begin_and_never_end_others_are_answered() -> None:
    beginnings = [
        b"",
        b"PRI * HTTP/2.0\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00",
    ]
    async with edge() as server:
        with ExitStack() as stack:
            for number in range(SLOW):
                one = stack.enter_context(socket.create_connection(address(server)))
                one.sendall(beginnings[number % len(beginnings)])
            async with Talk(server) as talk:
                await all_answered(talk)
            assert server.counts["run"] == FRAMES


async def test_who_does_not_end_its_greeting_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "HANDSHAKE_S", 1)
    async with edge() as server:
        with socket.create_connection(address(server)) as one:
            one.settimeout(TIMEOUT_S)
            one.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            await asyncio.to_thread(_to_the_end, one)


async def test_a_connection_without_a_call_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "IDLE_S", 1)
    async with edge() as server:
        with socket.create_connection(address(server)) as one:
            one.settimeout(TIMEOUT_S)
            one.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
            await asyncio.to_thread(_to_the_end, one)


def _to_the_end(one: socket.socket) -> None:
    """Read until the server closes, for which it need not wait for our goodbye."""
    while True:
        try:
            if not one.recv(1 << 16):
                return
        except ConnectionResetError:
            return


async def test_beside_fifty_that_read_nothing_others_are_answered_and_the_fifty_hold_little(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with edge(max_in_flight=4, queue=1000, max_greetings_per_s=0) as server:
        devices = [await slow_consumer(server, f"slow-{number}", 14) for number in range(SLOW)]
        stuck = server.server.service._conversations
        await until(lambda: len(stuck) == SLOW and all(one.outbox.full for one in stuck))
        async with Talk(server) as talk:
            await talk.frame(1)
            assert_answers(await talk.answer(), talk.bundle, 1, 0)
            for one in stuck:
                # As many as fill it, and one for each that was under way then.
                assert len(one.outbox) <= 2 * 4 + 4 or one.session.device == "cam"
        assert server.server.batcher.queue.waiting == 0
        for device in devices:
            device.socket.close()
        await until(lambda: not stuck and not server.server.guard._open)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_device_that_takes_nothing_for_long_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.server.service.STUCK_S", 0.0)
    async with edge(max_in_flight=4, heartbeat_ms=10_000) as server:
        device = await slow_consumer(server, "slow", 30)
        (conversation,) = server.server.service._conversations
        await until(lambda: conversation.outbox.full)
        server.server.service._settings.__dict__["heartbeat_ms"] = 10
        watching = asyncio.create_task(server.server.service.watch_for_silence())
        await until(lambda: not server.server.service._conversations)
        watching.cancel()
        device.socket.close()


# ---------------------------------------------------------------- floods


async def test_a_flood_of_urgent_frames_goes_first_as_often_as_it_may_and_then_waits_like_others() -> None:
    clock = lambda: 1000.0  # noqa: E731
    async with edge(clock=clock, max_device_urgent_per_s=3, max_batch=1) as server:
        async with Talk(server, device="flood") as flood, Talk(server, device="calm") as calm:
            server.gate.shut()
            await flood.frame(1)
            await server.gate.holds()
            await calm.frame(101)
            await until(lambda: server.waiting == 1)
            for number in range(2, 12):
                await flood.frame(number, priority=9)
            await until(lambda: server.waiting == 11)
            await calm.frame(102)
            await until(lambda: server.waiting == 12)
            server.gate.open()
            assert [(await calm.answer()).status for _ in range(2)] == [pb.STATUS_OK] * 2
            assert {(await flood.answer()).status for _ in range(11)} == {pb.STATUS_OK}
        order = [sequence for batch in server.gate.batches for sequence in batch]
        assert order == [1, 2, 3, 4, 101, *range(5, 12), 102]


async def test_single_calls_go_before_others_no_more_often() -> None:
    frames = [tiny.bundle().frames().pack_file(tiny.frame(tiny.bundle(), seed, 0)) for seed in range(4)]
    async with edge(clock=lambda: 1000.0, max_device_urgent_per_s=1, max_batch=1) as server, Talk(server) as talk:
        server.gate.shut()
        await talk.frame(1)
        await server.gate.holds()
        await talk.frame(2)
        await until(lambda: server.waiting == 1)
        calls = []
        for number, frame_file in enumerate(frames[:3], 2):
            calls.append(server.stub.Infer(pb.InferRequest(frame=frame_file, priority=9), timeout=TIMEOUT_S))
            await until(lambda number=number: server.waiting == number)
        server.gate.open()
        await asyncio.gather(*calls)
        assert [(await talk.answer()).sequence for _ in range(2)] == [1, 2]
        assert server.gate.batches == [[1], [0], [2], [0], [0]]


async def test_a_flood_takes_no_more_places_of_the_queue_than_one_device_may() -> None:
    async with edge(queue=20, max_in_flight=8, max_batch=4) as server, Talk(server, device="calm") as calm:
        server.gate.shut()
        talks = [Talk(server, device="flood", session=session) for session in range(4)]
        for talk in talks:
            await talk.__aenter__()
            for number in range(1, 11):
                await talk.frame(number)
        await until(lambda: server.requests("stream", "busy") == 32)
        assert server.counts["accepted"] == 8
        for number in range(1, 9):
            await calm.frame(number)
        await until(lambda: server.counts["accepted"] == 16)
        server.gate.open()
        assert [(await calm.answer()).status for _ in range(8)] == [pb.STATUS_OK] * 8


# ---------------------------------------------------------------- all at once


class Spy(Turnstile):
    """For it all come for the first time in one instant, however slow the machine is; notes what each is told."""

    def __init__(self, rate: int) -> None:
        super().__init__(rate, rate, 1000)
        self.began_s = math.nan
        self.entered: dict[str, float] = {}
        self.refused: Counter[str] = Counter()
        self.moments: dict[str, float] = {}

    def enter(self, device: str, now_s: float) -> float:
        if not (self.entered or self.refused):
            self.began_s = now_s
        if device not in self.refused:
            now_s = self.began_s
        wait_s = super().enter(device, now_s)
        if wait_s:
            self.refused[device] += 1
            self.moments[device] = self._moments[device]
        else:
            self.entered[device] = now_s
        return wait_s


@pytest.mark.parametrize(("devices", "rate"), [(20, 10), pytest.param(200, 50, marks=pytest.mark.slow)])
async def test_devices_that_lose_the_server_together_come_back_one_after_the_other(devices: int, rate: int) -> None:
    bundle = tiny.bundle()
    async with edge(max_greetings_per_s=0, queue=devices) as server, AsyncExitStack() as stack:
        links = [
            Link(server.addresses.grpc, LinkOptions(f"cam-{number}", bundle.id), rng=random.Random(number))
            for number in range(devices)
        ]
        for link in links:
            await stack.enter_async_context(link)
            await link.wait_connected(TIMEOUT_S)
        spy = server.server.service.door._turnstile = Spy(rate)
        server.server.service.hang_up("the network went away")
        await until(lambda: all(link.connections == 2 and link.connected.is_set() for link in links))
        assert spy.entered.keys() == {link.options.device for link in links}
        told = [moment_s - spy.began_s for moment_s in spy.moments.values()]
        assert told == pytest.approx([(number + 1) / rate for number in range(devices - rate)], abs=1e-5), "in turn"
        assert all(spy.entered[device] >= moment_s for device, moment_s in spy.moments.items())
        assert set(spy.refused.values()) == {1}, "who was told a moment is let in then"
        assert spy.refused.total() == server.denied("turnstile") == devices - rate
        data = bundle.frames().pack(tiny.frame(bundle, 1, 0))
        replies = await asyncio.gather(*(link.send(data) for link in links))
        assert len(replies) == devices


# ---------------------------------------------------------------- afterwards


async def storm(running: Edge) -> None:
    """Everything above in small, and all of them gone again."""
    with ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(socket.create_connection(address(running))).sendall(b"PRI * HTTP/2.0\r\n")
        slow = [await slow_consumer(running, f"slow-{number}", 20) for number in range(3)]
        for device in slow:
            stack.callback(device.socket.close)
        async with Talk(running, session=1) as talk:
            await all_answered(talk)
            for number in range(100, 110):
                await talk.frame(number, priority=9, deadline_ms=10_000)
        channel = running.channel.stream_stream("/headwater.v1.Edge/Infer")()
        channel.cancel()
    service = running.server.service
    await until(lambda: not (service._conversations or running.server.guard._open or running.waiting))
    await running.server.batcher.idle()


async def leak(running: Edge, left: list[Any]) -> None:
    """Leave one of everything behind."""
    async with Talk(running, device="leak", session=0):
        left.extend(running.server.service._conversations)
    left.append(socket.socket())
    left.append([asyncio.create_task(asyncio.Event().wait()) for _ in range(5)])  # grpc's own come and go, one or two


@pytest.mark.parametrize("leaks", [False, True])
async def test_a_storm_leaves_nothing_behind_and_a_leak_would_be_seen(leaks: bool) -> None:
    left: list[Any] = []
    hours = itertools.count()
    async with edge(max_in_flight=24, max_device_requests_per_s=0, clock=lambda: 3600.0 * next(hours)) as server:

        async def once() -> None:
            if leaks:
                await leak(server, left)
            await storm(server)

        more = await grown(once)
    for one, tasks in zip(left[1::3], left[2::3], strict=True):
        one.close()
        for task in tasks:
            task.cancel()
    if leaks:
        assert {"headwater.server.service.Conversation", "descriptors", "tasks"} <= set(more)
    else:
        assert not more
