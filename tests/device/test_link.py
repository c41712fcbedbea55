"""The link against a server that misbehaves in every way, on a real port."""

import asyncio
import itertools
import logging
import socket
import time
from collections.abc import Awaitable, Callable

import grpc
import pytest

from headwater.compression.errors import LinkError, RefusedError, UnknownBundleError
from headwater.device.link import Link
from headwater.protos import edge_pb2 as pb
from tests.device.fake_edge import FakeEdge, ok, serving
from tests.device.links import BUNDLE, linked, make


def score(answer: pb.Answer) -> float:
    return float(answer.results[0].scores[0])


async def test_says_who_it_is_and_gets_its_own_answers() -> None:
    edge = FakeEdge()
    async with linked(edge, version="1.2") as link:
        replies = await asyncio.gather(*(link.send(bytes([n, n])) for n in range(20)))
        assert [score(reply.answer) for reply in replies] == [2 * n for n in range(20)]
        assert all(reply.attempts == 1 and reply.round_trip_s is not None for reply in replies)
        hello = edge.hellos[0]
        assert (hello.device, hello.bundle_id, hello.agent_version) == ("pi", BUNDLE, "1.2")
        assert (hello.resume_from, hello.window) == (1, link.options.window)
        assert hello.session > 0
        assert edge.sequences == list(range(1, 21))
    await edge.until(lambda: any(message.HasField("goodbye") for message in edge.others))


async def test_answers_in_any_order_find_their_frames() -> None:
    held: list[pb.FeatureFrame] = []
    edge = FakeEdge(answer=held.append)
    async with linked(edge) as link:
        sends = [asyncio.create_task(link.send(bytes([n]))) for n in range(5)]
        await edge.until(lambda: len(held) == 5)
        for frame in reversed(held):
            await edge.send(pb.ServerMessage(answer=ok(frame)))
        assert [score((await send).answer) for send in sends] == [0, 1, 2, 3, 4]


async def test_no_more_than_the_window_flies() -> None:
    edge = FakeEdge(answer=lambda _: None)
    async with linked(edge, window=3) as link:
        sends = [asyncio.create_task(link.send(b"x")) for _ in range(10)]
        await edge.until(lambda: len(edge.frames) == 3)
        await edge.send(pb.ServerMessage(answer=ok(edge.frames[1])))
        await edge.until(lambda: len(edge.frames) == 4)
        assert edge.sequences == [1, 2, 3, 4]
        assert link.window.unanswered == 9
        for send in sends:
            send.cancel()


async def test_a_broken_stream_sends_again_under_the_same_numbers() -> None:
    edge = FakeEdge(answer=lambda frame: ok(frame) if frame.sequence == 2 else None)
    async with linked(edge) as link:
        sends = [asyncio.create_task(link.send(bytes([n]))) for n in range(4)]
        await edge.until(lambda: len(edge.frames) == 4)
        await sends[1]
        edge.answer = ok
        edge.break_streams()
        assert [score((await send).answer) for send in sends] == [0, 1, 2, 3]
        assert edge.sequences == [1, 2, 3, 4, 1, 3, 4]
        assert [hello.resume_from for hello in edge.hellos] == [1, 1]
        assert edge.hellos[0].session == edge.hellos[1].session
        assert link.connections == 2
        assert (await sends[0]).attempts == 2


async def test_frames_wait_while_there_is_no_server_and_connecting_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    edge = FakeEdge()
    async with serving(edge):
        pass  # a port that is free again
    with caplog.at_level(logging.WARNING, "headwater"):
        async with make(edge.port) as link:
            send = asyncio.create_task(link.send(b"\x07"))
            with pytest.raises(LinkError, match=r"no server answers at .*; is it running"):
                await link.wait_connected(0.3)
            warnings = [record for record in caplog.records if "trying again" in record.message]
            async with serving(edge):
                assert score((await send).answer) == 7
    assert len(warnings) == 1


async def test_the_server_goes_away_and_comes_back() -> None:
    edge = FakeEdge()
    async with serving(edge):
        link = make(edge.port)
        await link.__aenter__()
        await link.send(b"a")
    send = asyncio.create_task(link.send(b"b"))
    async with serving(edge):
        assert score((await send).answer) == ord("b")
        await link.__aexit__(None, None, None)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (grpc.StatusCode.FAILED_PRECONDITION, UnknownBundleError),
        (grpc.StatusCode.UNAUTHENTICATED, LinkError),
        (grpc.StatusCode.UNIMPLEMENTED, LinkError),
    ],
)
async def test_a_final_refusal_ends_the_link_with_the_servers_words(
    code: grpc.StatusCode, error: type[Exception]
) -> None:
    edge = FakeEdge(refuse=(code, "served are: other"))
    async with serving(edge), make(edge.port) as link:
        send = asyncio.create_task(link.send(b"x"))
        with pytest.raises(error, match="served are: other"):
            await link.wait_connected(10)
        with pytest.raises(error, match="served are: other"):
            await send
        with pytest.raises(error, match="served are: other"):
            await link.send(b"y")
        assert len(edge.hellos) == 1


async def test_a_passing_refusal_is_tried_again() -> None:
    edge = FakeEdge(refuse=(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many devices"))
    async with serving(edge), make(edge.port) as link:
        send = asyncio.create_task(link.send(b"\x03"))
        while len(edge.hellos) < 3:  # noqa: ASYNC110 - the fake refuses before it notifies
            await asyncio.sleep(0.001)
        assert isinstance(link.last_error, RefusedError | type(None))
        edge.refuse = None
        assert score((await send).answer) == 3


async def test_busy_is_waited_for_and_not_hammered() -> None:
    busy = pb.ServerTiming(retry_after_ms=80)
    times: list[float] = []

    def answer(frame: pb.FeatureFrame) -> pb.Answer:
        times.append(asyncio.get_running_loop().time())
        if len(times) <= 2:
            return pb.Answer(sequence=frame.sequence, status=pb.STATUS_BUSY, timing=busy)
        return ok(frame)

    edge = FakeEdge(answer=answer)
    async with linked(edge) as link:
        reply = await link.send(b"\x05")
        assert score(reply.answer) == 5
        assert reply.attempts == 3
        assert times[1] - times[0] >= 0.08
        assert times[2] - times[1] >= 0.16
        assert edge.sequences == [1, 1, 1]


async def test_a_deadline_ends_the_waiting_and_is_told_to_the_server() -> None:
    edge = FakeEdge(answer=lambda _: None)
    async with linked(edge) as link:
        reply = await link.send(b"x", give_up_s=asyncio.get_running_loop().time() + 0.15)
        assert reply.answer.status == pb.STATUS_EXPIRED
        assert reply.round_trip_s is None
        assert 1 <= edge.frames[0].deadline_ms <= 150
        await edge.send(pb.ServerMessage(answer=ok(edge.frames[0])))
        edge.answer = ok
        await link.send(b"y")
        assert link.window.counts.late == 1


async def test_a_cancelled_caller_withdraws_its_frame() -> None:
    edge = FakeEdge(answer=lambda _: None)
    async with linked(edge) as link:
        send = asyncio.create_task(link.send(b"x"))
        await edge.until(lambda: len(edge.frames) == 1)
        send.cancel()
        await edge.until(lambda: any(message.cancel.sequence == 1 for message in edge.others))


async def test_an_idle_link_sends_heartbeats() -> None:
    edge = FakeEdge(welcome=pb.Welcome(heartbeat_ms=20))
    async with linked(edge):
        await edge.until(lambda: sum(message.HasField("heartbeat") for message in edge.others) >= 3)


async def test_a_draining_server_keeps_what_flies_and_is_left() -> None:
    edge = FakeEdge(answer=lambda _: None)
    async with linked(edge) as link:
        first = asyncio.create_task(link.send(b"\x01"))
        await edge.until(lambda: len(edge.frames) == 1)
        await edge.send(pb.ServerMessage(drain=pb.Drain(grace_ms=1000)))
        while not link.window.draining:  # noqa: ASYNC110 - the other end's message has no event here
            await asyncio.sleep(0.001)
        second = asyncio.create_task(link.send(b"\x02"))
        edge.answer = ok
        await edge.send(pb.ServerMessage(answer=ok(edge.frames[0])))
        assert score((await first).answer) == 1
        assert score((await second).answer) == 2
        assert (await second).attempts == 1
        assert link.connections == 2


async def test_an_offer_is_declined_by_its_number() -> None:
    edge = FakeEdge()
    async with linked(edge):
        await edge.send(pb.ServerMessage(offer=pb.Offer(offer=17)))
        await edge.until(lambda: len(edge.others) == 1)
        assert (edge.others[0].offer_reply.offer, edge.others[0].offer_reply.accepted) == (17, False)


async def test_a_mode_hint_is_kept() -> None:
    edge = FakeEdge()
    async with linked(edge) as link:
        await edge.send(pb.ServerMessage(mode_hint=pb.ModeHint(max_bytes=3)))
        await link.send(b"x")
        assert link.mode_hint is not None
        assert link.mode_hint.max_bytes == 3


@pytest.mark.parametrize("leave", [Link.reconnect, Link._close], ids=["moving", "closing"])
async def test_what_is_left_to_write_is_written_before_a_goodbye(leave: Callable[[Link], object]) -> None:
    edge = FakeEdge()
    async with linked(edge) as link:
        for mode in range(3):
            link.control(pb.DeviceMessage(report=pb.Report(mode=mode)))
        if isinstance(leaving := leave(link), Awaitable):
            await leaving
        await edge.until(lambda: any(message.HasField("goodbye") for message in edge.others))
    assert [message.report.mode for message in edge.others[:3]] == [0, 1, 2]
    assert edge.others[3].HasField("goodbye")


async def test_a_wall_clock_that_jumps_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = itertools.cycle([0.0, 4e9, 1e6])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    edge = FakeEdge(welcome=pb.Welcome(heartbeat_ms=20))
    async with linked(edge) as link:
        replies = [await link.send(b"x", give_up_s=time.monotonic() + 60)]
        edge.break_streams()
        replies += [await link.send(b"y", give_up_s=time.monotonic() + 60) for _ in range(3)]
        await edge.until(lambda: sum(message.HasField("heartbeat") for message in edge.others) >= 3)
    assert {reply.answer.status for reply in replies} == {pb.STATUS_OK}
    assert all(0 <= (reply.round_trip_s or -1) < 60 for reply in replies)


async def test_closing_ends_frames_without_an_answer() -> None:
    edge = FakeEdge(answer=lambda _: None)
    async with serving(edge):
        async with make(edge.port) as link:
            send = asyncio.create_task(link.send(b"x"))
            await edge.until(lambda: len(edge.frames) == 1)
        with pytest.raises(LinkError, match="closed before the answer"):
            await send
        with pytest.raises(LinkError, match="closed"):
            await link.send(b"y")


async def test_a_server_that_does_not_greet_is_left() -> None:
    # The system takes the connection, but nobody ever speaks on it.
    with socket.create_server(("127.0.0.1", 0)) as server:
        link = make(server.getsockname()[1], connect_timeout_s=0.1)
        async with link:
            with pytest.raises(LinkError):
                await link.wait_connected(0.5)
            assert "did not greet within 0.1 s" in str(link.last_error)


async def test_pauses_grow_are_jittered_and_end_at_the_limit() -> None:
    link = make(1, first_pause_s=0.1, longest_pause_s=1.0)
    pauses = [link._next_pause_s() for _ in range(8)]
    for number, pause in enumerate(pauses):
        longest = min(0.1 * 2**number, 1.0)
        assert longest / 2 <= pause <= longest
    assert len(set(pauses)) == 8


async def test_a_server_that_tells_a_moment_is_taken_at_its_word() -> None:
    """However often it could not be reached before: the moment is this device's alone, and it will be let in then."""
    link = make(1, first_pause_s=0.1, longest_pause_s=60.0)
    for _ in range(12):
        link._next_pause_s()
    link.last_error = RefusedError("too many devices come at a time")
    link.last_error.retry_after_s = 2.5
    assert [link._next_pause_s(), link._next_pause_s()] == [2.5, 2.5]
    link.last_error.retry_after_s = 0.001
    assert link._next_pause_s() == 0.1
    link.last_error = LinkError("no server answers")
    assert link._next_pause_s() > 10
