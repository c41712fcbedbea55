"""A controller that does as a test says, an agent around it, and answers to compare with."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
from PIL import Image

from headwater.compression.bundle import Bundle
from headwater.device.agent import Agent
from headwater.device.control.controller import Decision, Observation, Situation
from headwater.device.record import FrameRecord
from headwater.device.settings import DeviceSettings
from headwater.protos import edge_pb2 as pb
from tests import tiny
from tests.device.fake_edge import FakeEdge, serving
from tests.server.edges import until

SOON_MS = 100
"""A deadline that is to pass."""
NEVER_MS = 600_000
"""One that is not."""
MODE = 11


class Scripted:
    """A controller that does as the test says, and keeps what it is told."""

    def __init__(self, decision: Decision | None = None, refined: Decision | None = None) -> None:
        self.decision = decision or Decision(MODE)
        self.refined = refined
        self.situations: list[Situation] = []
        self.refinements: list[tuple[Situation, float | None]] = []
        self.observations: list[Observation] = []

    def choose(self, situation: Situation) -> Decision:
        self.situations.append(situation)
        return self.decision

    def refine(self, decision: Decision, situation: Situation, confidence: float | None) -> Decision:
        self.refinements.append((situation, confidence))
        return self.refined or decision

    def observe(self, observation: Observation) -> None:
        self.observations.append(observation)

    @property
    def outcomes(self) -> list[str]:
        return [observation.outcome for observation in self.observations]


def silent(_: pb.FeatureFrame) -> None:
    """No answer."""


def ok(frame: pb.FeatureFrame) -> pb.Answer:
    shape = pb.TaskResult(task="shape", scores=[0.25, 0.5, 0.25])
    timing = pb.ServerTiming(queue_us=100, decode_us=200, run_us=700, batch=2)
    return pb.Answer(sequence=frame.sequence, status=pb.STATUS_OK, results=[shape], timing=timing)


@asynccontextmanager
async def agent_at(
    edge: FakeEdge | None, scripted: Scripted, bundle: Bundle | None = None, **settings: object
) -> AsyncIterator[Agent]:
    """An agent that asks for the task of the exit; without an edge there is no server."""
    chosen = DeviceSettings(**{"tasks": ("shape",), "retry_s": 0.1, **settings})  # type: ignore[arg-type]
    if edge is None:
        async with Agent(
            bundle or tiny.bundle(), "127.0.0.1:1", chosen, controller=scripted, connect_timeout_s=None
        ) as agent:
            yield agent
        return
    async with (
        serving(edge),
        Agent(bundle or tiny.bundle(), f"127.0.0.1:{edge.port}", chosen, controller=scripted) as agent,
    ):
        yield agent


async def let_the_deadline_pass(agent: Agent, count: int = 1) -> None:
    """Wait until so many frames are on their way, or wait for it, and do what the timers would."""
    window = agent.link.window
    await until(lambda: window.unanswered >= count)
    for outgoing in [*window._waiting, *window.flying.values()]:
        window.give_up(outgoing, time.monotonic())


async def infer(agent: Agent, seed: int) -> FrameRecord:
    return await agent.infer(Image.fromarray(tiny.image(seed)[0]), name=str(seed))


def assert_of_exit(record: FrameRecord, seed: int, mode: int = MODE) -> None:
    """The answer is the local exit's to this picture."""
    logits = tiny.exit_logits(tiny.bundle(), seed, mode).astype(float)
    wanted = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(list(record["shape"].scores.values()), wanted, atol=1e-5)
    assert (record.source, record.status) == ("local", "ok")
    assert record.confidence == pytest.approx(wanted.max(), abs=1e-5)
