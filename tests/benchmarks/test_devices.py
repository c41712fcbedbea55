"""The load that serving is measured under: every frame's outcome is counted, and one that has none is an error."""

from __future__ import annotations

import asyncio
from base64 import b64encode

import pytest

from benchmarks import devices
from benchmarks.devices import Load, Plan
from tests import tiny
from tests.server.edges import Edge, edge


def plan(running: Edge) -> Plan:
    host, port = running.addresses.grpc.rsplit(":", 1)
    bundle = tiny.bundle()
    frames = [b64encode(bundle.frames().pack(tiny.frame(bundle, seed, 0))).decode() for seed in range(4)]
    return Plan(host, int(port), bundle.id.hex(), frames, devices=3, seconds=0.1, window=4)


async def test_what_was_sent_is_what_was_answered_and_refused() -> None:
    async with edge(queue=2) as server:
        result = await asyncio.to_thread(Load(plan(server)).run)
    assert result.sent >= 12
    assert sum(result.answers.values()) == result.sent
    assert len(result.ok_ms) + len(result.refused_ms) == result.sent
    assert set(result.answers) <= {"ok", "busy"}


async def test_a_frame_without_an_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "LAST_S", 0.1)
    async with edge() as server:
        server.gate.shut()
        with pytest.raises(AssertionError, match="12 frames had no answer"):
            await asyncio.to_thread(Load(plan(server)).run)
        server.gate.open()
