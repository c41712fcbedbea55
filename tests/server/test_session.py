"""Streams over real sockets: order, window, cancel, reconnects, drain."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import grpc
import pytest

from headwater.compression.bundle import Bundle
from headwater.protos import edge_pb2 as pb
from tests import tiny
from tests.server.edges import TIMEOUT_S, Talk, assert_answers, edge, until


async def test_a_welcome_says_what_was_agreed(tiny_bundle: Bundle) -> None:
    async with edge(heartbeat_ms=1234, max_in_flight=5) as server, Talk(server) as talk:
        assert [task.name for task in talk.welcome.tasks] == [task.name for task in tiny_bundle.manifest.tasks]
        assert (talk.welcome.heartbeat_ms, talk.welcome.max_in_flight) == (1234, 5)


async def test_frames_are_answered_by_number_whatever_their_mode_and_cut(tiny_bundle: Bundle) -> None:
    async with edge() as server, Talk(server) as talk:
        for number in range(1, 49):
            frame = tiny.frame(tiny_bundle, number, number % 16, groups=1 + number % 3)
            await talk.frame(number, data=tiny_bundle.frames().pack(frame))
        answers = {answer.sequence: answer for answer in [await talk.answer() for _ in range(48)]}
        for number in range(1, 49):
            assert_answers(answers[number], tiny_bundle, number, number % 16, 1 + number % 3)


async def test_a_stream_must_begin_with_hello() -> None:
    async with edge() as server:
        talk = Talk(server)
        await talk.send(pb.DeviceMessage(heartbeat=pb.Heartbeat()))
        code, detail = await talk.status()
        assert (code, "heartbeat" in detail) == (grpc.StatusCode.INVALID_ARGUMENT, True)


async def test_a_stream_that_says_nothing_and_one_without_a_name_are_refused() -> None:
    async with edge() as server:
        talk = Talk(server)
        await talk.call.done_writing()
        assert (await talk.status())[0] == grpc.StatusCode.INVALID_ARGUMENT
        nameless = Talk(server, device="")
        assert (await nameless.refused())[0] == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_stream_for_an_unknown_bundle_is_a_failed_precondition(tiny_bundle: Bundle) -> None:
    async with edge() as server:
        talk = Talk(server, bundle=tiny.bundle("other", 1))
        code, detail = await talk.refused()
        assert (code, tiny_bundle.short_id in detail) == (grpc.StatusCode.FAILED_PRECONDITION, True)


async def test_a_second_hello_ends_the_stream() -> None:
    async with edge() as server, Talk(server) as talk:
        await talk.send(talk.hello)
        assert (await talk.status())[0] == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_bad_frame_is_answered_and_the_stream_goes_on(tiny_bundle: Bundle) -> None:
    async with edge(max_frame_bytes=200) as server, Talk(server) as talk:
        await talk.frame(1, data=b"")
        await talk.frame(2, data=bytes(201))
        await talk.frame(3, tasks=["colour"])
        await talk.frame(4, bundle_id=bytes(32))
        await talk.frame(0)
        statuses = [(await talk.answer()).status for _ in range(5)]
        invalid = pb.STATUS_INVALID_FRAME
        assert statuses == [invalid, invalid, pb.STATUS_UNKNOWN_TASK, pb.STATUS_UNKNOWN_BUNDLE, invalid]
        await talk.frame(5)
        assert_answers(await talk.answer(), tiny_bundle, 5, 0)
        assert server.requests("stream", "invalid_frame") == 3


async def test_a_frame_may_name_another_bundle_while_one_is_swapped(tiny_bundle: Bundle) -> None:
    other = tiny.bundle("other", 1)
    async with edge(tiny_bundle, other) as server, Talk(server) as talk:
        await talk.frame(1, bundle_id=other.id, data=other.frames().pack(tiny.frame(other, 1, 2)))
        assert_answers(await talk.answer(), other, 1, 2)


async def test_more_frames_than_the_window_are_refused_one_by_one() -> None:
    async with edge(max_in_flight=3) as server, Talk(server) as talk:
        server.gate.shut()
        for number in range(1, 6):
            await talk.frame(number)
        refused = [await talk.answer() for _ in range(2)]
        assert {answer.sequence for answer in refused} == {4, 5}
        assert {answer.status for answer in refused} == {pb.STATUS_BUSY}
        server.gate.open()
        assert [(await talk.answer()).status for _ in range(3)] == [pb.STATUS_OK] * 3


async def test_a_full_queue_is_answered_at_once_with_a_time_to_wait() -> None:
    async with edge(queue=2) as server, Talk(server) as talk:
        await talk.frame(1)
        await talk.answer()
        await server.gate.holds()
        server.gate.shut()
        await talk.frame(2)
        await server.gate.holds()
        for number in range(3, 8):
            await talk.frame(number)
        refused = [await talk.answer() for _ in range(3)]
        assert [answer.sequence for answer in refused] == [5, 6, 7]
        assert all(answer.status == pb.STATUS_BUSY and answer.timing.retry_after_ms >= 1 for answer in refused)
        server.gate.open()
        assert sorted([(await talk.answer()).sequence for _ in range(3)]) == [2, 3, 4]


async def test_an_expired_frame_is_answered_while_the_worker_is_busy_and_never_run() -> None:
    async with edge() as server, Talk(server) as talk:
        server.gate.shut()
        await talk.frame(1)
        await server.gate.holds()
        await talk.frame(2, deadline_ms=5)
        answer = await talk.answer()
        assert (answer.sequence, answer.status) == (2, pb.STATUS_EXPIRED)
        server.gate.open()
        assert (await talk.answer()).sequence == 1
        await server.server.batcher.idle()
        assert server.gate.batches == [[1]]


async def test_a_cancelled_frame_is_answered_and_never_run_but_one_that_runs_is_finished() -> None:
    async with edge() as server, Talk(server) as talk:
        server.gate.shut()
        await talk.frame(1)
        await server.gate.holds()
        await talk.frame(2)
        for number in (1, 2, 99):
            await talk.send(pb.DeviceMessage(cancel=pb.Cancel(sequence=number)))
        answer = await talk.answer()
        assert (answer.sequence, answer.status) == (2, pb.STATUS_CANCELLED)
        server.gate.open()
        answer = await talk.answer()
        assert (answer.sequence, answer.status) == (1, pb.STATUS_OK)
        assert server.gate.batches == [[1]]


async def test_a_failed_batch_is_answered_and_may_be_sent_again() -> None:
    async with edge() as server, Talk(server) as talk:
        server.gate.error = RuntimeError("the graph broke")
        await talk.frame(1)
        assert (await talk.answer()).status == pb.STATUS_INTERNAL
        await talk.frame(1)
        assert (await talk.answer()).status == pb.STATUS_OK


# ---------------------------------------------------------------- reconnects


async def test_a_frame_sent_again_after_a_reconnect_is_answered_from_memory_and_run_once(tiny_bundle: Bundle) -> None:
    async with edge() as server:
        async with Talk(server) as talk:
            await talk.frame(1)
            first = await talk.answer()
        async with Talk(server) as talk:
            await talk.frame(1)
            again = await talk.answer()
        assert again == first
        assert server.gate.batches == [[1]]
        async with Talk(server, session=8) as talk:  # another run of the agent counts from 1 again
            await talk.frame(1, seed=5)
            assert_answers(await talk.answer(), tiny_bundle, 5, 0)


async def test_a_frame_that_runs_while_the_stream_is_replaced_is_answered_on_the_new_one() -> None:
    async with edge() as server:
        async with Talk(server) as old:
            server.gate.shut()
            await old.frame(1)
            await server.gate.holds()
            async with Talk(server) as new:
                assert (await old.status())[0] == grpc.StatusCode.ABORTED
                await new.frame(1)
                await new.frame(2)
                await until(lambda: server.waiting == 1)  # or 1 is answered before it comes again, and then twice
                server.gate.open()
                assert [(await new.answer()).sequence for _ in range(2)] == [1, 2]
        assert server.gate.batches == [[1], [2]]


async def test_what_waits_for_a_device_that_is_gone_is_never_run() -> None:
    async with edge() as server:
        async with Talk(server) as talk:
            server.gate.shut()
            await talk.frame(1)
            await server.gate.holds()
            await talk.frame(2)
            await until(lambda: server.waiting == 1)
        await until(lambda: server.counts["cancelled"] == 1)
        server.gate.open()
        await server.server.batcher.idle()
        assert server.gate.batches == [[1]]
        async with Talk(server) as talk:  # 1 was run for nobody, and is remembered; 2 was not
            await talk.frame(1)
            await talk.frame(2)
            assert [(await talk.answer()).sequence for _ in range(2)] == [1, 2]
        assert server.gate.batches == [[1], [2]]


async def test_answers_below_resume_from_are_forgotten() -> None:
    async with edge() as server:
        async with Talk(server) as talk:
            for number in (1, 2):
                await talk.frame(number)
                await talk.answer()
        async with Talk(server, resume_from=2) as talk:
            (session,) = server.server.service._sessions
            assert list(session._answered) == [2]


async def test_no_more_answers_are_remembered_than_the_device_can_lack(tiny_bundle: Bundle) -> None:
    async with edge() as server:
        async with Talk(server, window=2) as talk:
            for number in range(1, 6):
                await talk.frame(number)
                await talk.answer()
            (session,) = server.server.service._sessions
            assert list(session._answered) == [4, 5]
        async with Talk(server, resume_from=4, window=2) as talk:
            for number in (4, 5):
                await talk.frame(number)
                assert_answers(await talk.answer(), tiny_bundle, number, 0)
        assert server.gate.batches == [[1], [2], [3], [4], [5]]


async def test_a_number_that_comes_twice_before_it_was_answered_is_run_and_answered_once() -> None:
    async with edge() as server, Talk(server) as talk:
        server.gate.shut()
        await talk.frame(1)
        await server.gate.holds()
        await talk.frame(2)
        await talk.frame(2)
        await talk.frame(3)
        await until(lambda: server.waiting == 2)
        server.gate.open()
        assert [(await talk.answer()).sequence for _ in range(3)] == [1, 2, 3]
        assert server.gate.batches == [[1], [2, 3]]


# ---------------------------------------------------------------- ends


async def test_goodbye_and_half_close_let_what_is_pending_be_answered_first() -> None:
    async with edge() as server:
        for politely in (True, False):
            async with Talk(server, session=0) as talk:
                server.gate.shut()
                await talk.frame(1)
                await talk.frame(2)
                await (talk.goodbye() if politely else talk.call.done_writing())
                server.gate.open()
                assert {(await talk.answer()).sequence, (await talk.answer()).sequence} == {1, 2}
                assert await talk.read() is grpc.aio.EOF
                assert (await talk.status())[0] == grpc.StatusCode.OK


async def test_a_drain_tells_the_device_finishes_what_is_in_flight_and_refuses_what_is_new() -> None:
    async with edge(grace_s=20.0) as server, Talk(server) as talk:
        server.gate.shut()
        await talk.frame(1)
        await server.gate.holds()
        stopping = asyncio.create_task(server.server.stop())
        message = await talk.read()
        assert message.drain.grace_ms == 20000
        await talk.frame(2)
        answer = await talk.answer()
        assert (answer.sequence, answer.status) == (2, pb.STATUS_DRAINING)
        server.gate.open()
        assert (await talk.answer()).status == pb.STATUS_OK
        await talk.goodbye()
        assert await talk.read() is grpc.aio.EOF
        await asyncio.wait_for(stopping, TIMEOUT_S)


async def test_a_silent_device_is_taken_for_gone_and_one_with_a_heartbeat_is_not() -> None:
    async with edge(heartbeat_ms=50) as server, Talk(server, device="silent") as silent, Talk(server) as beating:
        ended = asyncio.create_task(silent.status())
        while not ended.done():
            await beating.send(pb.DeviceMessage(heartbeat=pb.Heartbeat(sent_unix_ms=9)))
            assert (await beating.read()).heartbeat.sent_unix_ms == 9
            await asyncio.sleep(0.005)
        assert ended.result()[0] == grpc.StatusCode.UNAVAILABLE
        assert len(server.server.service._conversations) == 1


async def test_a_server_that_stood_still_takes_nobody_for_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after SIGSTOP, or on a machine that was asleep: the heartbeats are there, and have yet to be read."""
    looked: list[float] = []
    async with edge(heartbeat_ms=60_000) as server:
        service = server.server.service
        with monkeypatch.context() as patch:
            patch.setattr(service, "_hang_up_silent", lambda now_s, _: looked.append(now_s))
            times = iter([0.0, 60.0, 60.0, 1000.0, 1000.0, 1060.0])
            patch.setattr(service, "_loop", SimpleNamespace(time=lambda: next(times)))
            patch.setattr("headwater.server.service.asyncio", SimpleNamespace(sleep=lambda _: nothing()))
            with pytest.raises(RuntimeError):  # of a coroutine that meets the end of the times
                await service.watch_for_silence()
    assert looked == [60.0, 1060.0]


async def nothing() -> None:
    pass


async def test_more_devices_than_allowed_are_refused() -> None:
    async with edge(max_streams=1) as server, Talk(server):
        other = Talk(server, device="late")
        assert (await other.refused())[0] == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_report_is_kept_and_a_message_of_a_newer_agent_is_left_alone() -> None:
    async with edge() as server, Talk(server) as talk:
        await talk.send(pb.DeviceMessage(report=pb.Report(frames_answered=5)))
        await talk.send(pb.DeviceMessage(offer_reply=pb.OfferReply(offer=1)))
        await talk.send(pb.DeviceMessage())
        await talk.frame(1)
        await talk.answer()
        (session,) = server.server.service._sessions
        assert session.report is not None
        assert session.report.frames_answered == 5
