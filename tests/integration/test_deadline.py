"""The deadline is kept: agent, link and server over sockets, while the link or the server goes away.

No test races the clock. The deadline is a minute. Pictures that the server is to answer have all of it; pictures that
are to find their deadline past are handed over when most of it is over, while the link is held.
"""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headwater.compression.bundle import Bundle
from headwater.device import Agent, FrameRecord, read_records
from headwater.device.control.controller import Decision, FixedController, Observation
from headwater.device.feed import Picture
from headwater.device.settings import DeviceSettings
from headwater.simulations.link import LinkProxy
from headwater.simulations.trace import LinkTrace
from tests import tiny
from tests.integration.processes import AgentProcess, ServerProcess
from tests.server.edges import edge, until

DEADLINE_MS = 60_000
LEFT_S = 0.25
"""What is left for a picture that the server is not to answer in time."""
MODE = 11
LINK = LinkTrace.constant("quick", 2_000_000, delay_s=0.002)


class Told(FixedController):
    """Always the same mode; keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(MODE)
        self.observations: list[Observation] = []

    def observe(self, observation: Observation) -> None:
        self.observations.append(observation)

    def count(self, outcome: str) -> int:
        return sum(observation.outcome == outcome for observation in self.observations)


class Device:
    """An agent, and what became of its pictures."""

    def __init__(self, agent: Agent, told: Told, bundle: Bundle, path: Path) -> None:
        self.agent = agent
        self.told = told
        self.records: list[FrameRecord] = []
        self._bundle = bundle
        self._path = path
        self._seed = 0

    async def take(self, count: int, *, left_s: float = DEADLINE_MS / 1e3) -> list[FrameRecord]:
        """Answer so many new pictures, as many at a time as the window allows."""
        before = len(self.records)
        seeds = range(self._seed, self._seed + count)
        self._seed += count

        async def pictures() -> AsyncIterator[Picture]:
            for seed in seeds:
                taken_s = time.monotonic() - DEADLINE_MS / 1e3 + left_s
                yield Picture(str(seed), Image.fromarray(tiny.image(seed)[0]), {}, taken_s)

        await self.agent.run(pictures(), self.records.append)
        return self.records[before:]

    def check(self) -> None:
        """Every picture has one record, of its own, with the answer that belongs to it; the file has the same ones."""
        names = [record.name for record in self.records]
        assert sorted(names, key=int) == [str(seed) for seed in range(self._seed)]
        assert len({record.sequence for record in self.records}) == self._seed
        for record in self.records:
            assert_right(record, self._bundle)
        written = list(read_records(self._path))
        assert [(one.name, one.source) for one in written] == [(one.name, one.source) for one in self.records]
        assert self.agent.pending == 0


def assert_right(record: FrameRecord, bundle: Bundle) -> None:
    """The answer is the server's to the frame of this mode, or the exit's to the latent of this width."""
    assert record.status == "ok", record
    seed = int(record.name.removesuffix(".png"))
    if record.source == "edge":
        wanted = tiny.answer(bundle, seed, record.mode)["shape"]
    else:
        logits = tiny.exit_logits(bundle, seed, record.mode).astype(float)
        wanted = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(list(record["shape"].scores.values()), wanted, atol=2e-4)


def sources(records: Iterable[FrameRecord]) -> set[str]:
    return {record.source for record in records}


@asynccontextmanager
async def device_at(address: str, bundle: Bundle, folder: Path, **changes: object) -> AsyncIterator[Device]:
    told, path = Told(), folder / "r.jsonl"
    plain = {"tasks": ("shape",), "deadline_ms": DEADLINE_MS, "retry_s": 0.2, "records": path, **changes}
    settings = DeviceSettings(**plain)  # type: ignore[arg-type]
    async with Agent(bundle, address, settings, controller=told, connect_timeout_s=30) as agent:
        yield Device(agent, told, bundle, path)


STALLS: dict[str, Callable[[LinkProxy], None]] = {
    "black-out": lambda proxy: proxy.black_out(),
    "nothing goes up": lambda proxy: proxy.up.hold(),
    "nothing comes down": lambda proxy: proxy.down.hold(),
}


@pytest.mark.parametrize("stall", STALLS)
async def test_while_the_link_stalls_every_picture_is_answered_here(
    tiny_bundle: Bundle, tmp_path: Path, stall: str
) -> None:
    async with (
        edge() as server,
        LinkProxy(server.addresses.grpc, LINK) as proxy,
        device_at(proxy.address, tiny_bundle, tmp_path, window=16) as device,
    ):
        assert sources(await device.take(5)) == {"edge"}
        STALLS[stall](proxy)
        instead = await device.take(12, left_s=LEFT_S)
        assert sources(instead) == {"local"}
        assert device.agent.link.connected.is_set(), "nobody has noticed yet, and nobody had to"
        proxy.restore()
        await until(lambda: not device.agent.link.window.flying)
        ran = [sequence for batch in server.gate.batches for sequence in batch]
        assert len(ran) == len(set(ran)), "a frame was run twice"
        assert device.told.count("late") == len(set(ran) & {record.sequence for record in instead})
        assert sources(await device.take(5)) == {"edge"}
        device.check()
        assert proxy.connections == 1
    assert {record.detail for record in instead if record.attempts} <= {"no answer before the deadline"}
    assert device.told.count("local") == 12
    waited = [one.waited_ms for one in device.told.observations if one.outcome == "local" and one.sent]
    assert len(waited) == sum(record.attempts for record in instead)
    assert all(waited_ms > 0 for waited_ms in waited)


async def test_a_reset_in_the_middle_of_frames_is_made_good_while_there_is_time(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    async with (
        edge() as server,
        LinkProxy(server.addresses.grpc, LINK) as proxy,
        device_at(proxy.address, tiny_bundle, tmp_path) as device,
    ):
        await device.take(2)
        proxy.up.hold()
        sending = asyncio.create_task(device.take(6))
        await until(lambda: len(device.agent.link.window.flying) == 6)
        proxy.cut()
        proxy.up.release()
        again = await sending
        assert [(record.source, record.attempts) for record in again] == [("edge", 2)] * 6
        device.check()
        assert proxy.connections == 2


async def test_a_reset_in_a_black_out_leaves_the_answers_to_the_device(tiny_bundle: Bundle, tmp_path: Path) -> None:
    async with (
        edge() as server,
        LinkProxy(server.addresses.grpc, LINK) as proxy,
        device_at(proxy.address, tiny_bundle, tmp_path, window=16) as device,
    ):
        await device.take(2)
        proxy.black_out()
        proxy.cut()
        await until(lambda: not device.agent.link.connected.is_set())
        cut_off = await device.take(10, left_s=LEFT_S)
        assert {(record.source, record.bytes, record.attempts) for record in cut_off} == {("local", 0, 0)}
        proxy.restore()
        await device.agent.link.wait_connected()
        assert sources(await device.take(4)) == {"edge"}
        device.check()
        assert sorted(sequence for batch in server.gate.batches for sequence in batch) == sorted(
            record.sequence for record in device.records if record.source == "edge"
        ), "nothing was sent that was given up"


async def test_a_full_server_leaves_the_answers_to_the_device(tiny_bundle: Bundle, tmp_path: Path) -> None:
    async with (
        edge(queue=1, max_batch=1) as server,
        LinkProxy(server.addresses.grpc, LINK) as proxy,
        device_at(proxy.address, tiny_bundle, tmp_path, window=16) as device,
    ):
        await device.take(2)
        server.gate.shut()
        instead = await device.take(10, left_s=LEFT_S)
        assert sources(instead) == {"local"}
        server.gate.open()
        await until(lambda: not device.agent.link.window.flying)
        assert sources(await device.take(4)) == {"edge"}
        device.check()
        assert device.told.count("local") == 10
        assert device.told.count("answered") == 6


async def test_a_server_that_is_killed_and_comes_back(tiny_bundle: Bundle, tmp_path: Path) -> None:
    with ServerProcess(tiny_bundle.save(tmp_path / "tiny.zip")) as server:
        async with (
            LinkProxy(server.address, LINK) as proxy,
            device_at(proxy.address, tiny_bundle, tmp_path) as device,
        ):
            assert sources(await device.take(4)) == {"edge"}
            await asyncio.to_thread(server.end, signal.SIGKILL)
            await until(lambda: not device.agent.link.connected.is_set())
            assert sources(await device.take(4, left_s=LEFT_S)) == {"local"}
            await asyncio.to_thread(server.start)
            await device.agent.link.wait_connected()
            assert sources(await device.take(4)) == {"edge"}
            device.check()


async def test_what_was_answered_here_reaches_the_archive_later_and_once(tiny_bundle: Bundle, tmp_path: Path) -> None:
    kept = {"spool": tmp_path / "spool.db", "keep": "unanswered", "window": 16}
    async with (
        edge(archive=tmp_path / "archive.db") as server,
        LinkProxy(server.addresses.grpc, LINK) as proxy,
        device_at(proxy.address, tiny_bundle, tmp_path, **kept) as device,
    ):
        await device.take(3)
        proxy.black_out()
        instead = await device.take(9, left_s=LEFT_S)
        spool = device.agent.spool
        assert spool is not None
        await until(lambda: spool.stats.kept == 9)
        proxy.restore()
        await until(lambda: spool.stats.delivered == 9)
        await device.take(3)
        device.check()
        assert (spool.stats.frames, spool.stats.kept) == (0, 9)
    with closing(sqlite3.connect(tmp_path / "archive.db")) as archive:
        sequences = [sequence for (sequence,) in archive.execute("SELECT sequence FROM frames ORDER BY sequence")]
    assert sequences == sorted(record.sequence for record in instead)


# ---------------------------------------------------------------- the command, with the rule


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(24):
        Image.fromarray(tiny.image(seed)[0]).save(folder / f"{seed:03}.png")
    return folder


def words(bundle: Path, address: str, photos: Path, *more: str) -> list[str]:
    given = ["--bundle", str(bundle), "--server", address, "--source", str(photos), "--tasks", "shape"]
    return [*given, "--retry-s", "0.2", "--log-level", "error", *more]


async def test_a_device_that_never_had_a_server_answers_every_picture(
    tiny_bundle: Bundle, photos: Path, tmp_path: Path
) -> None:
    bundle, path = tiny_bundle.save(tmp_path / "tiny.zip"), tmp_path / "r.jsonl"
    more = ("--deadline-ms", "400", "--records", str(path))
    async with AgentProcess(*words(bundle, "127.0.0.1:1", photos, *more)) as agent:
        status, out, err = await agent.finish()
    assert (status, err) == (0, "")
    assert out.splitlines()[-1].startswith("24 of 24 frames answered; 24 of them on the device")
    records = list(read_records(path))
    assert sorted(record.name for record in records) == [f"{seed:03}.png" for seed in range(24)]
    for record in records:
        assert_right(record, tiny_bundle)


async def test_a_black_out_under_the_rule_and_the_way_back(tiny_bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    bundle = tiny_bundle.save(tmp_path / "tiny.zip")
    more = ("--deadline-ms", "1000", "--fps", "50", "--repeat", "--json")
    with ServerProcess(bundle) as server:
        async with (
            LinkProxy(server.address, LINK) as proxy,
            AgentProcess(*words(bundle, proxy.address, photos, *more)) as agent,
        ):

            async def until_source(source: str) -> None:
                record = None
                while record is None or record.source != source:
                    record = FrameRecord.from_json(await agent.line())
                    assert_right(record, tiny_bundle)

            for _ in range(2):
                await until_source("edge")
                proxy.black_out()
                await until_source("local")
                proxy.restore()
            await until_source("edge")
            agent.process.send_signal(signal.SIGTERM)
            status, out, err = await agent.finish()
    assert (status, err) == (0, "")
    for line in out.splitlines():
        assert_right(FrameRecord.from_json(line), tiny_bundle)


async def test_refining_may_end_a_picture_here_with_a_real_server(tiny_bundle: Bundle) -> None:
    class Every(Told):
        def refine(self, decision: Decision, situation: object, confidence: float | None) -> Decision:  # noqa: ARG002
            return Decision(MODE, action="local" if len(self.observations) % 2 else "send")

    settings = DeviceSettings(tasks=("shape",), deadline_ms=DEADLINE_MS)
    async with edge() as server, Agent(tiny_bundle, server.addresses.grpc, settings, controller=Every()) as agent:
        records = [await agent.infer(tiny.image(seed)[0], name=str(seed)) for seed in range(6)]
    assert [record.source for record in records] == ["edge", "local"] * 3
    for record in records:
        assert_right(record, tiny_bundle)
