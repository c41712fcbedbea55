"""The service over real sockets: Infer, Describe, Exchange, health and reflection."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from PIL import Image

from headwater.compression.bundle import Bundle
from headwater.compression.errors import SettingsError
from headwater.protos import edge_pb2 as pb
from headwater.server.app import SERVICE
from tests import tiny
from tests.server.edges import TIMEOUT_S, Edge, assert_answers, edge, until


def request(seed: int = 0, mode: int = 0, groups: int | None = None, **fields: Any) -> pb.InferRequest:  # noqa: ANN401 - fields of the message
    bundle = fields.pop("bundle", None) or tiny.bundle()
    return pb.InferRequest(frame=bundle.frames().pack_file(tiny.frame(bundle, seed, mode, groups)), **fields)


async def refused(call: Any) -> grpc.aio.AioRpcError:  # noqa: ANN401 - any call of a stub
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def infer(edge: Edge, message: pb.InferRequest) -> pb.Answer:
    answer: pb.Answer = await edge.stub.Infer(message, timeout=TIMEOUT_S)
    return answer


async def test_answers_are_those_of_onnxruntime_for_every_mode_and_cut(tiny_bundle: Bundle) -> None:
    async with edge() as server:
        for mode in range(len(tiny_bundle.manifest.modes)):
            for groups in (1, 2, 3):
                answer = await infer(server, request(mode, mode, groups))
                assert_answers(answer, tiny_bundle, mode, mode, groups)
                assert answer.groups_used == groups
                assert answer.bundle_id == tiny_bundle.id[:5]
        assert answer.timing.batch == 1
        assert answer.timing.run_us > 0


async def test_frames_of_all_modes_share_a_batch_and_none_is_mixed_up(tiny_bundle: Bundle) -> None:
    async with edge() as server:
        server.gate.shut()
        first = asyncio.create_task(infer(server, request()))
        await server.gate.holds()
        calls = [asyncio.create_task(infer(server, request(seed, seed % 16))) for seed in range(20)]
        await until(lambda: server.waiting == 20)
        server.gate.open()
        await first
        for seed, call in enumerate(calls):
            answer = await call
            assert_answers(answer, tiny_bundle, seed, seed % 16)
            assert answer.timing.batch == 20
            assert answer.timing.queue_us > 0


async def test_only_the_tasks_that_are_asked_for_are_answered() -> None:
    async with edge() as server:
        answer = await infer(server, request(tasks=["bright"]))
        assert [result.task for result in answer.results] == ["bright"]
        error = await refused(server.stub.Infer(request(tasks=["shape", "colour"])))
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "'colour'" in str(error.details())
        assert "shape, bright" in str(error.details())


@pytest.mark.parametrize("frame", [b"", b"HW", b"XX" + bytes(40), bytes(8), b"HW\x02" + bytes(40)])
async def test_bytes_that_are_no_frame_are_an_invalid_argument(frame: bytes) -> None:
    async with edge() as server:
        error = await refused(server.stub.Infer(pb.InferRequest(frame=frame)))
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert server.requests("infer", "invalid_frame") == 1


async def test_every_damaged_byte_of_a_frame_is_noticed() -> None:
    async with edge() as server:
        frame = request(3, 2).frame
        for position in range(8, len(frame)):
            broken = bytearray(frame)
            broken[position] ^= 0x55
            error = await refused(server.stub.Infer(pb.InferRequest(frame=bytes(broken))))
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert server.counts["accepted"] == 0


async def test_a_frame_larger_than_the_limit_is_refused_unread() -> None:
    async with edge(max_frame_bytes=64) as server:
        error = await refused(server.stub.Infer(pb.InferRequest(frame=bytes(65))))
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "at most 64" in str(error.details())


async def test_an_unknown_bundle_is_a_failed_precondition_that_lists_what_is_served(tiny_bundle: Bundle) -> None:
    async with edge() as server:
        error = await refused(server.stub.Infer(request(bundle=tiny.bundle("other", 1))))
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert tiny_bundle.short_id in str(error.details())


async def test_several_bundles_are_told_apart_by_their_frames() -> None:
    bundles = tiny.bundle(), tiny.bundle("other", 1)
    async with edge(*bundles) as server:
        for seed in range(4):
            for bundle in bundles:
                assert_answers(await infer(server, request(seed, 3, bundle=bundle)), bundle, seed, 3)


async def test_of_n_plus_k_calls_exactly_k_are_refused_at_once_while_the_worker_is_held() -> None:
    capacity, extra = 6, 4
    async with edge(queue=capacity) as server:
        await infer(server, request())  # so that there is a pace to estimate from
        await server.gate.holds()
        server.gate.shut()
        running = asyncio.create_task(infer(server, request()))
        await server.gate.holds()
        calls = [asyncio.create_task(infer(server, request(seed))) for seed in range(capacity + extra)]
        await until(lambda: sum(call.done() for call in calls) >= extra)
        done = [call for call in calls if call.done()]
        for error in [call.exception() for call in done]:
            assert isinstance(error, grpc.aio.AioRpcError)
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert int(dict(error.trailing_metadata() or ())["grpc-retry-pushback-ms"]) >= 1
        server.gate.open()
        await running
        assert len(done) == extra
        answers = [await call for call in calls if call not in done]
        assert {answer.status for answer in answers} == {pb.STATUS_OK}
        assert (server.counts["refused"], server.counts["run"]) == (extra, capacity + 2)
        assert server.requests("infer", "busy") == extra


async def test_a_call_whose_deadline_passes_in_the_queue_is_never_run() -> None:
    async with edge() as server:
        server.gate.shut()
        running = asyncio.create_task(infer(server, request()))
        await server.gate.holds()
        error = await refused(server.stub.Infer(request(), timeout=0.05))
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: server.counts["expired"] + server.counts["cancelled"] == 1)
        server.gate.open()
        await running
        await server.server.batcher.idle()
        assert server.counts["run"] == 1


async def test_a_cancelled_call_is_never_run() -> None:
    async with edge() as server:
        server.gate.shut()
        running = asyncio.create_task(infer(server, request()))
        await server.gate.holds()
        call = server.stub.Infer(request())
        await until(lambda: server.waiting == 1)
        call.cancel()
        await until(lambda: server.counts["cancelled"] == 1)
        server.gate.open()
        await running
        await server.server.batcher.idle()
        assert server.counts["run"] == 1


async def test_a_batch_that_fails_is_an_internal_error_and_the_server_goes_on() -> None:
    async with edge() as server:
        server.gate.error = RuntimeError("the graph broke")
        error = await refused(server.stub.Infer(request()))
        assert error.code() == grpc.StatusCode.INTERNAL
        assert "the graph broke" not in str(error.details())
        assert (await infer(server, request())).status == pb.STATUS_OK


async def test_a_frame_waits_behind_a_more_urgent_one() -> None:
    async with edge(max_batch=1) as server:
        server.gate.shut()
        first = asyncio.create_task(infer(server, request()))
        await server.gate.holds()
        asked = []
        for count, priority in enumerate((0, 9, 4)):
            asked.append(asyncio.create_task(infer(server, request(priority=priority))))
            await until(lambda: server.waiting > count)  # noqa: B023 - awaited before count changes
        server.gate.open()
        await asyncio.gather(first, *asked)
        assert server.gate.priorities == [0, 9, 4, 0]  # as they ran; answers may overtake each other on the way back


async def test_describe_says_what_is_served_the_newest_first() -> None:
    old, new = tiny.bundle(), tiny.bundle("tiny", 2)
    async with edge(old, new, queue=17, max_frame_bytes=999) as server:
        description = await server.stub.Describe(pb.DescribeRequest())
        assert [bundle.id for bundle in description.bundles] == [new.id, old.id]
        assert description.bundles[0].modes == 16
        assert [task.name for task in description.bundles[0].tasks] == ["shape", "bright"]
        assert list(description.bundles[0].tasks[1].labels) == ["dark", "light"]
        assert (description.queue_capacity, description.max_frame_bytes, description.draining) == (17, 999, False)


async def test_a_later_bundle_is_described_with_what_it_answers_for_and_the_kinds_of_its_tasks(
    tiny_bundle: Bundle,
) -> None:
    async with edge(tiny_bundle, tiny.later()) as server:
        (described,) = (await server.stub.Describe(pb.DescribeRequest())).bundles
    assert described.id == tiny.later().id
    assert list(described.answers_for) == [tiny_bundle.id]
    kinds = {task.name: task.kind for task in described.tasks}
    assert kinds == {
        "shape": pb.TASK_KIND_CLASSIFY,
        "bright": pb.TASK_KIND_CLASSIFY,
        "column": pb.TASK_KIND_CLASSIFY,
        "reconstruct": pb.TASK_KIND_IMAGE,
    }


async def test_frames_of_an_earlier_bundle_share_batches_with_those_of_the_later(tiny_bundle: Bundle) -> None:
    later = tiny.later()
    async with edge(later) as server:
        server.gate.shut()
        first = asyncio.create_task(infer(server, request()))
        await server.gate.holds()
        sources = [tiny_bundle, later] * 4
        calls = [
            asyncio.create_task(infer(server, request(seed, seed, bundle=source)))
            for seed, source in enumerate(sources)
        ]
        await until(lambda: server.waiting == len(calls))
        server.gate.open()
        await first
        for seed, call in enumerate(calls):
            answer = await call
            assert_answers(answer, later, seed, seed)
            assert answer.timing.batch == len(calls)
            assert answer.bundle_id == later.id[:5]


async def test_a_picture_is_sent_when_it_is_asked_for_by_name() -> None:
    later = tiny.later()
    async with edge(later) as server:
        without = await infer(server, request(5, 6, bundle=later))
        answer = await infer(server, request(5, 6, bundle=later, tasks=["reconstruct", "bright"]))
    assert [result.task for result in without.results] == ["shape", "bright", "column"]
    bright, result = answer.results
    assert (bright.task, result.task, len(result.scores)) == ("bright", "reconstruct", 0)
    with Image.open(io.BytesIO(result.image)) as image:
        assert (image.format, image.mode) == ("PNG", "L")
        np.testing.assert_array_equal(np.asarray(image), tiny.picture(later, 5, 6)[0])


async def test_exchange_says_that_there_is_nothing_to_exchange() -> None:
    async with edge() as server:
        call = server.stub.Exchange()
        assert await call.code() == grpc.StatusCode.UNIMPLEMENTED
        assert "nothing to exchange" in await call.details()


async def test_health_and_reflection_are_the_standard_ones() -> None:
    async with edge() as server:
        health: Any = health_pb2_grpc.HealthStub(server.channel)
        for name in ("", SERVICE):
            reply = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(server.channel)
        call = reflection.ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        listed = {service.name for service in (await call.read()).list_services_response.service}
        assert {SERVICE, "grpc.health.v1.Health"} <= listed
        await call.done_writing()


async def test_a_draining_server_takes_no_new_work_and_says_so() -> None:
    async with edge() as server:
        server.server.service.drain(1.0)
        error = await refused(server.stub.Infer(request()))
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert (await server.stub.Describe(pb.DescribeRequest())).draining


async def test_one_state_is_served_by_one_server(tmp_path: Path) -> None:
    async with edge(state=tmp_path):
        with pytest.raises(SettingsError, match="another server serves"):
            async with edge(state=tmp_path):
                pass
