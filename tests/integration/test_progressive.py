"""Frames in parts, from a picture to its record: agent, slow link and server, over sockets.

The link carries 2.5 kbit/s. A picture of noise takes 430 bytes, a third of them in each channel group, and each part
some 70 more on the wire: 0.7 s a part. Where a test wants parts to be missing it does not race the link, it holds the
link once the first part has crossed.
"""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from PIL import Image

from headwater.compression.bundle import Bundle
from headwater.compression.errors import DeadlineError
from headwater.device import Agent, FrameRecord
from headwater.device.settings import DeviceSettings
from headwater.server.training.measure import Bench
from headwater.simulations.link import LinkProxy
from headwater.simulations.trace import LinkTrace
from tests.server.edges import Edge, edge, until

SLOW = LinkTrace.constant("slow", 2_500)
DEADLINE_MS = 4000
HELD_S = 0.5
NOISE = np.random.default_rng(0).integers(0, 256, (1, 32, 32), dtype=np.uint8)
MODE = 15


def settings(**changes: object) -> DeviceSettings:
    fixed = {"width": 1.0, "gain": 3, "progressive": True, **changes}
    return DeviceSettings(**fixed)  # type: ignore[arg-type]


def assert_measured(record: FrameRecord, bundle: Bundle, groups: int) -> None:
    """The record has the answer that the bench gives to the frame cut after so many groups."""
    run = Bench(bundle, NOISE[np.newaxis]).run(bundle.manifest.modes[MODE], groups)
    for task, (logits,) in run.logits.items():
        wanted = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        np.testing.assert_allclose(list(record[task].scores.values()), wanted, atol=1e-5)


def late_parts(server: Edge) -> float | None:
    return server.server.metrics.registry.get_sample_value("headwater_late_parts_total")


async def first_part(server: Edge) -> None:
    """Wait until the server has parts of a frame that is not whole."""
    sessions = server.server.service._sessions
    await until(lambda: any(len(session.parts) for session in sessions))


async def test_a_deadline_too_short_for_the_frame_is_met_with_fewer_groups(tiny_bundle: Bundle) -> None:
    picture, late = Image.fromarray(NOISE[0]), 0
    async with (
        edge() as server,
        LinkProxy(server.addresses.grpc, SLOW) as proxy,
        Agent(tiny_bundle, proxy.address, settings(deadline_ms=DEADLINE_MS), connect_timeout_s=30) as agent,
    ):
        for _ in range(2):
            frame = asyncio.create_task(agent.infer(picture))
            await first_part(server)
            proxy.up.hold()
            record = await frame
            proxy.up.release()
            assert record.groups == 3
            assert 1 <= record.groups_used < 3
            assert record.latency_ms < DEADLINE_MS
            assert_measured(record, tiny_bundle, record.groups_used)
            late += 3 - record.groups_used
            await until(lambda late=late: late_parts(server) == late)  # the next frame is to find the link free


async def test_without_parts_the_same_frame_expires(tiny_bundle: Bundle) -> None:
    async with (
        edge() as server,
        LinkProxy(server.addresses.grpc, SLOW) as proxy,
        Agent(tiny_bundle, proxy.address, settings(deadline_ms=1000, progressive=False), connect_timeout_s=30) as agent,
    ):
        with pytest.raises(DeadlineError, match="no answer before the deadline"):
            await agent.infer(Image.fromarray(NOISE[0]))


async def test_with_time_enough_the_whole_frame_is_answered(tiny_bundle: Bundle) -> None:
    async with (
        edge() as server,
        LinkProxy(server.addresses.grpc, SLOW) as proxy,
        Agent(tiny_bundle, proxy.address, settings(deadline_ms=30_000), connect_timeout_s=30) as agent,
    ):
        frame = asyncio.create_task(agent.infer(Image.fromarray(NOISE[0])))
        await first_part(server)
        proxy.up.hold()
        await asyncio.sleep(HELD_S)
        proxy.up.release()
        record = await frame
        assert (record.groups, record.groups_used, record.attempts) == (3, 3, 1)
        assert_measured(record, tiny_bundle, 3)
        assert record.server.collect_us >= HELD_S * 1e6
        assert late_parts(server) == 0


async def test_a_connection_cut_between_two_parts_loses_nothing(tiny_bundle: Bundle) -> None:
    async with (
        edge() as server,
        LinkProxy(server.addresses.grpc, SLOW) as proxy,
        Agent(tiny_bundle, proxy.address, settings(retry_s=0.1), connect_timeout_s=30) as agent,
    ):
        frame = asyncio.create_task(agent.infer(Image.fromarray(NOISE[0])))
        await first_part(server)
        proxy.cut()
        record = await frame
        assert (record.groups_used, record.attempts) == (3, 2)
        assert_measured(record, tiny_bundle, 3)
        assert server.gate.batches == [[1]]
