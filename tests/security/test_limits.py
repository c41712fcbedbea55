"""Limits to the number: cap N, N + k sent, k refused. Rates are measured by a clock that stands."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headwater.protos import edge_pb2 as pb
from headwater.server.access import guard
from headwater.server.access.denials import PUSHBACK
from headwater.server.access.limits import GREETINGS_AT_ONCE, Allowance
from headwater.server.session import Outbox, Session
from tests import tiny
from tests.server.edges import TIMEOUT_S, Edge, Talk, edge, until

N, K = 5, 3


class Clock:
    """Stands until it is told to go on."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


async def refused(call: Any) -> grpc.aio.AioRpcError:  # noqa: ANN401 - any call of a stub
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def welcomed(running: Edge, count: int, *, one_device: bool) -> tuple[list[Talk], list[grpc.StatusCode]]:
    """Say so many hellos at once: the streams that were opened, and how the others ended."""
    talks = [Talk(running, device="cam" if one_device else f"cam-{number}", session=number) for number in range(count)]
    for talk in talks:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await talk.send(talk.hello)
    async with asyncio.timeout(TIMEOUT_S):
        answers = await asyncio.gather(*(talk.call.read() for talk in talks), return_exceptions=True)
    there = [talk for talk, answer in zip(talks, answers, strict=True) if isinstance(answer, pb.ServerMessage)]
    return there, [(await talk.status())[0] for talk in talks if talk not in there]


async def test_frames_beyond_the_rate_are_refused_each_with_its_time_to_wait() -> None:
    clock = Clock()
    async with edge(clock=clock, max_device_requests_per_s=N) as server, Talk(server) as talk:
        for number in range(1, N + K + 1):
            await talk.frame(number)
        answers = {answer.sequence: answer for answer in [await talk.answer() for _ in range(N + K)]}
        assert [answers[number].status for number in range(1, N + 1)] == [pb.STATUS_OK] * N
        for number in range(N + 1, N + K + 1):
            assert answers[number].status == pb.STATUS_BUSY
            assert answers[number].timing.retry_after_ms == 200
        assert server.denied("requests") == K
        clock.now_s += 0.2
        for number in (N + 1, N + 2):
            await talk.frame(number)
        assert {(await talk.answer()).status for _ in range(2)} == {pb.STATUS_OK, pb.STATUS_BUSY}
        assert server.counts["accepted"] == N + 1


async def test_another_stream_of_the_device_does_not_give_it_more() -> None:
    async with edge(clock=Clock(), max_device_requests_per_s=N) as server:
        statuses = []
        for session in (1, 2):
            async with Talk(server, session=session) as talk:
                for number in range(1, N + 1):
                    await talk.frame(number)
                statuses += [(await talk.answer()).status for _ in range(N)]
        assert sorted(statuses) == [pb.STATUS_OK] * N + [pb.STATUS_BUSY] * N


async def test_one_device_s_flood_leaves_another_s_rate_alone() -> None:
    async with (
        edge(clock=Clock(), max_device_requests_per_s=N) as server,
        Talk(server, device="flood") as flood,
        Talk(server, device="calm") as calm,
    ):
        for number in range(1, 4 * N + 1):
            await flood.frame(number)
        for number in range(1, N + 1):
            await calm.frame(number)
        assert {(await calm.answer()).status for _ in range(N)} == {pb.STATUS_OK}


async def test_calls_beyond_the_rate_are_refused_each_with_its_time_to_wait() -> None:
    async with edge(clock=Clock(), max_device_requests_per_s=N) as server:
        calls = [server.stub.Describe(pb.DescribeRequest(), timeout=TIMEOUT_S) for _ in range(N + K)]
        codes = [await call.code() for call in calls]
        assert sorted(codes, key=str) == [grpc.StatusCode.OK] * N + [grpc.StatusCode.RESOURCE_EXHAUSTED] * K
        assert server.denied("requests") == K
        error = await refused(calls[codes.index(grpc.StatusCode.RESOURCE_EXHAUSTED)])
        assert dict(error.trailing_metadata())[PUSHBACK] == "200"


async def test_calls_open_at_a_time_are_counted_and_one_that_ends_makes_room() -> None:
    async with edge(max_device_calls=N) as server:
        stub: Any = health_pb2_grpc.HealthStub(server.channel)
        watches = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(N)]
        for watch in watches:
            await watch.read()
        for _ in range(K):
            error = await refused(server.stub.Describe(pb.DescribeRequest(), timeout=TIMEOUT_S))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert server.denied("calls") == K
        watches.pop().cancel()
        await until(lambda: len(server.server.guard._open) == N - 1)
        await server.stub.Describe(pb.DescribeRequest(), timeout=TIMEOUT_S)
        for watch in watches:
            watch.cancel()


async def test_streams_of_one_device_are_counted() -> None:
    async with edge(max_device_streams=N) as server:
        there, others = await welcomed(server, N + K, one_device=True)
        assert (len(there), others) == (N, [grpc.StatusCode.RESOURCE_EXHAUSTED] * K)
        assert server.denied("streams") == K
        there[0].call.cancel()
        await until(lambda: server.server.service.door.inside == N - 1)
        async with Talk(server, session=99):
            pass


async def test_streams_of_all_devices_are_counted_although_they_come_at_once() -> None:
    async with edge(max_streams=N) as server:
        there, others = await welcomed(server, N + K, one_device=False)
        assert (len(there), others) == (N, [grpc.StatusCode.RESOURCE_EXHAUSTED] * K)


async def test_devices_beyond_the_turnstile_s_rate_are_each_told_another_moment() -> None:
    clock = Clock()
    async with edge(clock=clock, max_greetings_per_s=N) as server:
        talks = [Talk(server, device=f"cam-{number}") for number in range(N + K)]
        moments = []
        for talk in talks:
            await talk.send(talk.hello)
            with contextlib.suppress(grpc.aio.AioRpcError):
                await talk.read()
                continue
            assert (await talk.status())[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
            moments.append(dict(await talk.call.trailing_metadata())[PUSHBACK])
        assert moments == [str(200 * (number + 1)) for number in range(K)]
        assert server.denied("turnstile") == K
        clock.now_s += 0.2
        async with Talk(server, device=f"cam-{N}"):
            late = Talk(server, device=f"cam-{N + 1}")
            assert (await late.refused())[0] is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_device_that_opens_streams_too_often_is_refused() -> None:
    async with edge(clock=Clock(), max_greetings_per_s=0) as server:
        for session in range(GREETINGS_AT_ONCE):
            async with Talk(server, session=session):
                pass
            await until(lambda: server.server.service.door.inside == 0)
        assert (await Talk(server).refused())[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        async with Talk(server, device="another"):
            pass


async def test_unanswered_frames_are_counted_over_all_streams_of_a_device() -> None:
    async with edge(max_in_flight=N) as server, Talk(server, session=1) as one, Talk(server, session=2) as two:
        server.gate.shut()
        for number in range(1, N):
            await one.frame(number)
        await until(lambda: server.counts["accepted"] == N - 1)
        for number in range(1, K + 2):
            await two.frame(number)
        assert [(await two.answer()).status for _ in range(K)] == [pb.STATUS_BUSY] * K
        assert server.counts["accepted"] == N
        server.gate.open()
        assert (await two.answer()).status == pb.STATUS_OK


async def test_frames_that_wait_are_counted_in_bytes() -> None:
    frames = [tiny.bundle().frames().pack(tiny.frame(tiny.bundle(), seed, 15)) for seed in range(12)]
    most = sum(map(len, frames[:8])) + 10
    async with edge(max_frame_bytes=max(map(len, frames)), max_stream_bytes=most) as server, Talk(server) as talk:
        server.gate.shut()
        for number, data in enumerate(frames, 1):
            await talk.frame(number, data=data)
        refusals = [await talk.answer() for _ in range(server.denied("memory") or 1)]
        assert all(answer.status == pb.STATUS_BUSY for answer in refusals)
        await until(lambda: server.counts["accepted"] + server.denied("memory") == len(frames))
        assert 8 <= server.counts["accepted"] < len(frames)
        server.gate.open()
        left = [await talk.answer() for _ in range(len(frames) - len(refusals))]
        assert sum(answer.status == pb.STATUS_OK for answer in left) == server.counts["accepted"]


async def test_answers_that_nobody_reads_and_those_that_are_remembered_are_counted_in_bytes() -> None:
    async with edge(max_frame_bytes=64, max_stream_bytes=400) as server:
        service = server.server.service
        session = Session("cam", service.admission, server.server.metrics, service.door.allowances.of("cam"))
        outbox = Outbox(1000, 400)
        session.attach(outbox, 0)
        served = service.registry.served[0]
        for number in range(1, 21):
            data = served.frames.pack(tiny.frame(tiny.bundle(), number, 0))
            session.frame(served, pb.FeatureFrame(sequence=number, data=data))
            await session.quiet()
        statuses = [message.answer.status for message, _ in outbox._messages]
        ran = statuses.index(pb.STATUS_BUSY)
        assert statuses == [pb.STATUS_OK] * ran + [pb.STATUS_BUSY] * (20 - ran)
        assert outbox.full
        assert sum(message.ByteSize() for message, _ in list(outbox._messages)[:ran]) <= 400
        assert session._answered_bytes == sum(map(len, session._answered.values())) <= 400
        assert server.denied("memory") == 20 - ran
        session.detach(outbox)
        assert session.allowance.unanswered == session._waiting_bytes == 0


@pytest.mark.parametrize("method", ["Describe", "Infer", "Stream", "Exchange"])
async def test_a_message_larger_than_any_of_its_kind_is_refused(method: str, tmp_path: Path) -> None:
    most = guard.SMALL_BYTES if method == "Describe" else (1 << 20) + (1 << 16)
    async with edge(state=tmp_path) as server:
        call = server.channel.stream_stream(f"/headwater.v1.Edge/{method}")()
        with contextlib.suppress(grpc.aio.AioRpcError):
            await call.write(bytes(most + 1))
        assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert server.denied("size") == (1 if method == "Describe" else 0), "larger ones gRPC refuses unread"
        async with Talk(server) as talk:
            await talk.frame(1)
            await talk.answer()


async def test_a_message_that_unpacks_to_a_thousand_times_its_size_is_never_unpacked() -> None:
    async with edge() as server:
        bomb = pb.InferRequest(frame=bytes(1 << 20))
        error = await refused(server.stub.Infer(bomb, compression=grpc.Compression.Gzip, timeout=TIMEOUT_S))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        await until(lambda: not server.server.guard._open)


async def test_a_call_that_never_says_anything_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "FIRST_MESSAGE_S", 0.05)
    async with edge() as server:
        methods = ("headwater.v1.Edge/Describe", "headwater.v1.Edge/Stream", "grpc.health.v1.Health/Watch")
        calls = [server.channel.stream_stream(f"/{method}")() for method in methods]
        for call in calls:
            assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert server.denied("slow") == len(calls)
        assert not server.server.guard._open


async def test_what_is_sent_beyond_the_bytes_a_second_is_to_be_read_later(monkeypatch: pytest.MonkeyPatch) -> None:
    held, read = [], Allowance.read

    def noted(allowance: Allowance, size: int) -> float:
        held.append(read(allowance, size))
        return 0.0

    monkeypatch.setattr(Allowance, "read", noted)
    rates = {"clock": Clock(), "max_device_bytes_per_s": 1 << 16, "max_frame_bytes": 1 << 15}
    async with edge(**rates) as server, Talk(server) as talk:
        for number in range(1, 6):
            await talk.frame(number, data=bytes(1 << 14))
        assert [(await talk.answer()).status for _ in range(5)] == [pb.STATUS_INVALID_FRAME] * 5
    first, second = [seconds for seconds in held if seconds]
    assert 0 < first < 0.1, "the fourth is over by what is around the frames"
    assert second == pytest.approx(first + 0.25, abs=0.01)


async def test_a_device_that_is_held_back_holds_back_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    async with edge() as server, Talk(server, device="flood") as flood, Talk(server, device="calm") as calm:
        its = server.server.service.door.allowances.of("flood")
        monkeypatch.setattr(Allowance, "read", lambda one, _: 3600.0 if one is its else 0.0)
        await flood.frame(1)
        for number in range(1, 6):
            await calm.frame(number)
        assert [(await calm.answer()).sequence for _ in range(5)] == [1, 2, 3, 4, 5]
        assert server.counts["accepted"] == 5
