"""A device with several servers: where it goes when one fails, stops or refuses. Real servers, on real sockets."""

import asyncio
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest
from PIL import Image

from headwater.compression.bundle import Bundle
from headwater.compression.errors import UnknownBundleError
from headwater.device import read_records
from headwater.device.channel import open_channel
from headwater.device.link import Link
from headwater.device.link_options import LinkOptions
from headwater.device.route import ranked
from headwater.device.window import Reply
from tests import tiny
from tests.integration.processes import AgentProcess, ServerProcess
from tests.server.edges import Edge, Talk, assert_answers, edge, until

DEVICE = "cam"


class Servers:
    """Three real servers in this process, in the order in which the device tries them."""

    def __init__(self, edges: Sequence[Edge]) -> None:
        by_address = {each.addresses.grpc: each for each in edges}
        self.addresses = ranked(by_address, DEVICE)
        self.edges = [by_address[address] for address in self.addresses]

    def __getitem__(self, place: int) -> Edge:
        return self.edges[place]

    def connected(self) -> list[int]:
        return [len(each.server.service._conversations) for each in self.edges]


@asynccontextmanager
async def serving(*bundles: Bundle, count: int = 3, **settings: object) -> AsyncIterator[Servers]:
    async with AsyncExitStack() as stack:
        yield Servers([await stack.enter_async_context(edge(*bundles, **settings)) for _ in range(count)])


def make(servers: Sequence[str], device: str = DEVICE, attempts: list[str] | None = None) -> Link:
    """A link that notes its attempts to connect."""

    def channel(server: str) -> grpc.aio.Channel:
        if attempts is not None:
            attempts.append(server)
        return open_channel(server)

    options = LinkOptions(device, tiny.bundle().id, first_pause_s=0.01, longest_pause_s=0.05)
    return Link(servers, options, channel=channel, rng=random.Random(1))


async def ask(link: Link, seed: int) -> Reply:
    async with asyncio.timeout(30):
        return await link.send(tiny.bundle().frames().pack(tiny.frame(tiny.bundle(), seed, 0)))


def pending(edge: Edge) -> int:
    return sum(len(session.pending) for session in edge.server.service._sessions)


def check(replies: Sequence[Reply]) -> None:
    """Each is the answer of its own frame; the seeds count up from 0."""
    for seed, reply in enumerate(replies):
        assert_answers(reply.answer, tiny.bundle(), seed, 0)


async def test_a_fleet_spreads() -> None:
    async with serving(count=2) as servers, AsyncExitStack() as stack:
        names = [f"cam-{number}" for number in range(16)]
        for name in names:
            link = await stack.enter_async_context(make(servers.addresses, name))
            await link.wait_connected(30)
        first = Counter(ranked(servers.addresses, name)[0] for name in names)
        assert servers.connected() == [first[address] for address in servers.addresses]


async def test_frames_in_flight_move_to_the_next_server_and_are_answered_once() -> None:
    attempts: list[str] = []
    async with serving(heartbeat_ms=3_600_000) as servers, make(servers.addresses, attempts=attempts) as link:
        servers[0].gate.shut()
        sends = [asyncio.create_task(ask(link, seed)) for seed in range(8)]
        await servers[0].gate.holds()
        await until(lambda: len(link.window.flying) == 8)
        servers[0].server.service.hang_up("crashed")
        await servers[0].server._server.stop(None)
        replies = await asyncio.gather(*sends)
        check(replies)
        assert {reply.attempts for reply in replies} == {2}
        assert servers.connected()[1:] == [1, 0]
        assert attempts == [servers.addresses[0], servers.addresses[1]], "nothing had been answered there"
        assert (link.window.counts.answered, link.window.counts.stray, link.window.unanswered) == (8, 0, 0)


async def test_a_device_stays_where_it_went_when_the_first_is_back() -> None:
    attempts: list[str] = []
    async with serving() as servers:
        first, second, _ = servers.addresses
        await servers[0].server.stop(0.0)
        async with make(servers.addresses, attempts=attempts) as link:
            replies = [await ask(link, 0)]
            async with edge(listen=first):
                replies += [await ask(link, seed) for seed in range(1, 4)]
                servers[1].server.service.hang_up("a connection that breaks")
                replies += [await ask(link, seed) for seed in range(4, 8)]
                assert link.server == second
                await servers[1].server.stop(0.0)
                replies += [await ask(link, seed) for seed in range(8, 12)]
                assert link.server == first
                tried = list(attempts)
        check(replies)
    assert tried[:3] == [first, second, second]
    assert set(tried[3:]) <= {first, second}


async def test_a_stopping_server_answers_what_it_has_and_sends_its_devices_where_it_wants() -> None:
    async with serving(count=2) as others, edge(listen="127.0.0.1:0", peers=(others.addresses[1],)) as stopping:
        servers = [stopping.addresses.grpc, others.addresses[0]]
        device = next(f"{n}" for n in range(99) if ranked(servers, f"{n}")[0] == stopping.addresses.grpc)
        async with make(servers, device) as link:
            stopping.gate.shut()
            sends = [asyncio.create_task(ask(link, seed)) for seed in range(4)]
            await stopping.gate.holds()
            await until(lambda: pending(stopping) == 4)  # what comes later is refused, and goes elsewhere
            stop = asyncio.create_task(stopping.server.stop(30))
            await until(lambda: link.window.draining)
            sends += [asyncio.create_task(ask(link, seed)) for seed in range(4, 8)]
            stopping.gate.open()
            replies = await asyncio.gather(*sends)
            await stop
            check(replies)
            assert {reply.attempts for reply in replies} == {1}, "none was cut off"
            assert link.server == others.addresses[1], "the peer that it named, not the device's own"


async def test_servers_that_refuse_are_passed_over() -> None:
    async with serving(tiny.bundle("other", seed=1), count=1) as wrong, serving(count=2, max_streams=1) as right:
        full, free = right.edges
        async with Talk(full, device="someone else"):
            device = next(
                f"{n}"
                for n in range(999)
                if ranked([*wrong.addresses, *right.addresses], f"{n}")
                == [wrong.addresses[0], full.addresses.grpc, free.addresses.grpc]
            )
            async with make([*wrong.addresses, *right.addresses], device) as link:
                check([await ask(link, 0)])
                assert link.server == free.addresses.grpc


async def test_a_server_that_takes_the_connection_and_says_nothing_is_passed_over() -> None:
    # The system takes the connections to the first, but nobody ever speaks on them.
    async with serving(count=1) as right:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            servers = [f"127.0.0.1:{silent.getsockname()[1]}", *right.addresses]
            device = next(f"{n}" for n in range(99) if ranked(servers, f"{n}")[0] == servers[0])
            options = LinkOptions(device, tiny.bundle().id, first_pause_s=0.01, failover_s=0.05)
            async with Link(servers, options, rng=random.Random(1)) as link:
                check([await ask(link, 0)])
                assert link.server == servers[1]
                assert link._patience_s == 0.05, "as if all were new, once a server works"


async def test_a_device_that_every_server_refuses_is_told_why() -> None:
    async with serving(tiny.bundle("other", seed=1), count=2) as servers, make(servers.addresses) as link:
        with pytest.raises(UnknownBundleError, match="is not served here"):
            await ask(link, 0)
        with pytest.raises(UnknownBundleError):
            await ask(link, 1)


async def test_pauses_come_only_after_all_were_tried_and_grow() -> None:
    addresses = [f"127.0.0.1:{port}" for port in (1, 2, 3)]
    attempts: list[str] = []
    pauses: list[tuple[int, float]] = []
    link = make(addresses, attempts=attempts)
    own = link._next_pause_s

    def noted() -> float:
        pauses.append((len(attempts), own()))
        return pauses[-1][1]

    link._next_pause_s = noted  # type: ignore[method-assign]
    async with link:
        await until(lambda: len(pauses) >= 5)
    assert attempts[:15] == 5 * ranked(addresses, DEVICE)
    counts, lengths_s = zip(*pauses[:5], strict=True)
    assert counts == (3, 6, 9, 12, 15)
    for length_s, longest_s in zip(lengths_s, (0.01, 0.02, 0.04, 0.05, 0.05), strict=True):
        assert 0.5 * longest_s <= length_s <= longest_s
    assert len(set(lengths_s)) == 5, "jittered"


# ---------------------------------------------------------------- processes


async def test_an_agent_whose_server_is_killed_goes_to_the_other(tmp_path: Path) -> None:
    bundle = tiny.bundle().save(tmp_path / "tiny.zip")
    for seed in range(40):
        Image.fromarray(tiny.image(seed)[0]).save(tmp_path / f"{seed:03}.png")
    records = tmp_path / "records.jsonl"
    with ExitStack() as stack:
        pair = [ServerProcess(bundle), ServerProcess(bundle)]
        await asyncio.gather(*(asyncio.to_thread(stack.enter_context, server) for server in pair))
        servers = {server.address: server for server in pair}
        words = ("--bundle", bundle, "--server", ",".join(servers), "--source", tmp_path, "--fps", "30")
        more = ("--name", DEVICE, "--records", records, "--log-level", "error")
        async with AgentProcess(*map(str, (*words, *more))) as agent:
            for _ in range(10):
                await agent.line()
            servers[ranked(servers, DEVICE)[0]].kill()
            status, _, err = await agent.finish()
    assert (status, err) == (0, "")
    answered = list(read_records(records))
    assert sorted(record.name for record in answered) == [f"{seed:03}.png" for seed in range(40)]
    assert {record.status for record in answered} == {"ok"}
