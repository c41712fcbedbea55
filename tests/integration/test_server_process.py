"""``headwater server`` as a process: ready line, SIGTERM that loses nothing, SIGHUP, refusals, many devices."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headwater.compression.bundle import Bundle
from headwater.protos import edge_pb2 as pb
from headwater.protos import edge_pb2_grpc
from tests import tiny
from tests.integration.processes import HEADWATER
from tests.server.edges import TIMEOUT_S, Edge, Talk, assert_answers


class Server:
    """A running ``headwater server``."""

    def __init__(self, process: asyncio.subprocess.Process, line: str) -> None:
        self.process = process
        self.line = line
        found = re.search(r"grpc=(\S+) http=(\S+)", line)
        assert found, line
        self.grpc, self.http = found[1], found[2]

    async def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, list[dict[str, Any]]]:
        """Send a signal; exit status and the log's lines."""
        self.process.send_signal(number)
        async with asyncio.timeout(TIMEOUT_S):
            _, err = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, [json.loads(line) for line in err.decode().splitlines()]

    async def page(self, path: str) -> str:
        def fetch() -> str:
            with urllib.request.urlopen(f"http://{self.http}{path}", timeout=TIMEOUT_S) as reply:
                return str(reply.read().decode())

        return await asyncio.to_thread(fetch)


async def launch(*arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*HEADWATER, "server", *arguments, stdout=pipe, stderr=pipe)


@asynccontextmanager
async def serving(bundle: Path, *arguments: str) -> AsyncIterator[Server]:
    process = await launch("--bundle", str(bundle), "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", *arguments)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(TIMEOUT_S):
            line = (await process.stdout.readline()).decode()
        yield Server(process, line)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@asynccontextmanager
async def connected(server: Server, **talk: Any) -> AsyncIterator[Talk]:  # noqa: ANN401 - arguments of Talk
    # As each device has one: gRPC would let channels to one server share a connection.
    own = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.insecure_channel(server.grpc, options=own) as channel:
        edge: Any = Edge.__new__(Edge)
        edge.stub = edge_pb2_grpc.EdgeStub(channel)
        async with Talk(edge, **talk) as talking:
            yield talking


@pytest.fixture
def bundle(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    return tiny_bundle.save(tmp_path / "bundle")


async def test_it_says_where_it_listens_serves_and_ends_on_sigterm(bundle: Path, tiny_bundle: Bundle) -> None:
    async with serving(bundle) as server:
        assert f"bundles=tiny {tiny_bundle.short_id}" in server.line
        assert await server.page("/readyz") == "ready\n"
        async with connected(server) as talk:
            await talk.frame(1, mode=5)
            assert_answers(await talk.answer(), tiny_bundle, 1, 5)
            await talk.goodbye()
        assert 'headwater_requests_total{call="stream",outcome="ok"} 1.0' in await server.page("/metrics")
        status, log = await server.end()
        assert status == 0
        assert log[0]["message"].startswith("without TLS: only this machine can connect")
        assert [line["message"] for line in log[1:]] == ["serving", "stopping", "stopped"]
        assert (log[-1]["accepted"], log[-1]["run"]) == (1, 1)


async def test_sigterm_under_load_answers_everything_that_was_sent_before_the_drain(
    bundle: Path, tiny_bundle: Bundle
) -> None:
    async with serving(bundle, "--max-batch", "2") as server, connected(server) as talk:
        statuses: dict[int, int] = {}
        drained_after = None
        for number in range(1, 41):
            await talk.frame(number, mode=number % 16)
        server.process.send_signal(signal.SIGTERM)
        while len(statuses) < 40:
            message = await talk.read()
            assert message is not grpc.aio.EOF
            if message.WhichOneof("kind") == "drain":
                drained_after = len(statuses)
                continue
            number = message.answer.sequence
            assert number not in statuses
            statuses[number] = message.answer.status
            if message.answer.status == pb.STATUS_OK:
                assert_answers(message.answer, tiny_bundle, number, number % 16)
        # Each was answered once: with scores or, where it came behind the signal, with DRAINING to be sent elsewhere.
        assert set(statuses.values()) <= {pb.STATUS_OK, pb.STATUS_DRAINING}
        await talk.goodbye()
        while (message := await talk.read()) is not grpc.aio.EOF:
            drained_after = len(statuses) if message.WhichOneof("kind") == "drain" else drained_after
        assert drained_after is not None
        status, log = await server.end()
        assert status == 0
        assert log[-1]["run"] == log[-1]["accepted"] == list(statuses.values()).count(pb.STATUS_OK)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="pin needs two cores")
async def test_pinned_the_worker_has_a_core_that_no_other_thread_may_use(bundle: Path, tiny_bundle: Bundle) -> None:
    async with serving(bundle, "--pin", "--workers", "1") as server, connected(server) as talk:
        await talk.frame(1, mode=5)
        assert_answers(await talk.answer(), tiny_bundle, 1, 5)
        threads = await asyncio.to_thread(os.listdir, f"/proc/{server.process.pid}/task")
        allowed = [os.sched_getaffinity(int(thread)) for thread in threads]
    alone = [cores for cores in allowed if cores == {max(os.sched_getaffinity(0))}]
    assert len(alone) == 1
    assert sum(bool(cores & alone[0]) for cores in allowed) == 1


async def test_a_device_that_stays_is_cut_after_the_grace_and_health_watchers_see_it(bundle: Path) -> None:
    async with serving(bundle, "--grace-s", "0.2") as server:
        async with grpc.aio.insecure_channel(server.grpc) as channel, connected(server) as talk:
            health: Any = health_pb2_grpc.HealthStub(channel)
            watch = health.Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            status, log = await server.end()
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert (await talk.read()).WhichOneof("kind") == "drain"
            assert await talk.status() == (grpc.StatusCode.UNAVAILABLE, "the server has stopped")
        assert status == 0
        assert "the grace is over: what is still open is cut" in [line["message"] for line in log]


async def test_a_second_sigterm_does_not_wait_for_the_grace(bundle: Path) -> None:
    async with serving(bundle, "--grace-s", "3000") as server, connected(server) as talk:
        server.process.send_signal(signal.SIGTERM)
        assert (await talk.read()).WhichOneof("kind") == "drain"
        status, _ = await server.end()
        assert status == 0


async def test_sighup_serves_a_new_bundle_beside_the_one_before(bundle: Path, tiny_bundle: Bundle) -> None:
    newer = tiny.bundle("tiny", 3)
    async with serving(bundle) as server, connected(server) as old:
        newer.save(bundle)
        server.process.send_signal(signal.SIGHUP)
        assert server.process.stderr is not None
        async with asyncio.timeout(TIMEOUT_S):
            while b"read again" not in (line := await server.process.stderr.readline()):
                assert line
        async with connected(server, bundle=newer, device="new") as new:
            await old.frame(1)
            assert_answers(await old.answer(), tiny_bundle, 1, 0)
            await new.frame(1)
            assert_answers(await new.answer(), newer, 1, 0)


async def test_two_hundred_devices_at_a_time_are_all_answered(bundle: Path, tiny_bundle: Bundle) -> None:
    async with serving(bundle, "--queue", "1000", "--max-greetings-per-s", "0") as server:

        async def device(index: int) -> None:
            async with connected(server, device=f"cam-{index}") as talk:
                for number in (1, 2):
                    await talk.frame(number, seed=index % 24, mode=index % 16)
                for _ in range(2):
                    assert_answers(await talk.answer(), tiny_bundle, index % 24, index % 16)

        await asyncio.gather(*(device(index) for index in range(200)))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--listen", "0.0.0.0:0"], "--state DIR"),
        (["--listen", "nowhere"], "host:port"),
        (["--queue", "0"], "queue"),
        ([], "--bundle"),
        (["--bundle", "/nowhere"], "/nowhere"),
    ],
)
async def test_what_cannot_work_is_one_paragraph_and_no_traceback(arguments: list[str], says: str) -> None:
    process = await launch(*arguments)
    async with asyncio.timeout(TIMEOUT_S):
        _, err = await process.communicate()
    assert process.returncode in {1, 2}
    assert says in err.decode()
    assert "Traceback" not in err.decode()


async def test_a_port_that_is_taken_is_an_error(bundle: Path) -> None:
    async with serving(bundle) as server:
        for flag, taken in (("--listen", server.grpc), ("--http", server.http)):
            process = await launch("--bundle", str(bundle), flag, taken)
            async with asyncio.timeout(TIMEOUT_S):
                _, err = await process.communicate()
            assert process.returncode == 2
            assert f"{taken}, which cannot be bound" in err.decode()
