"""A real server and real agents in one event loop, with releases between them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from headwater.device import Agent
from headwater.device.settings import DeviceSettings
from headwater.server.rollout.canary import Rules
from headwater.server.rollout.gate import Bounds
from headwater.server.rollout.publish import publish
from tests import tiny
from tests.server.edges import Edge, edge, until
from tests.versions import SIGNER, version, write_keys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from headwater.compression.bundle import Bundle
    from headwater.server.rollout.versions import Released, Versions

BOUNDS = Bounds(100.0, 10_000.0)
ALL = Rules(share=1.0)


class Fleet:
    """A server with its state, and agents by name."""

    def __init__(self, running: Edge, state: Path, folder: Path, stack: AsyncExitStack) -> None:
        self.running = running
        self.state = state
        self.agents: dict[str, Agent] = {}
        self._folder = folder
        self._stack = stack
        _, self._public = write_keys(folder)

    async def join(self, name: str, given: Bundle | None = None, **settings: object) -> Agent:
        plain = {"name": name, "state": self._folder / name, "trusted_key": self._public, "width": 1.0}
        chosen = DeviceSettings(**{**plain, "report_s": 0.1, "retry_s": 0.1, **settings})  # type: ignore[arg-type]
        agent = Agent(given or version(0), self.running.addresses.grpc, chosen, connect_timeout_s=20)
        self.agents[name] = await self._stack.enter_async_context(agent)
        return self.agents[name]

    def release(self, number: int, rules: Rules = ALL) -> Released:
        return publish(self.state, version(number), SIGNER, rules, BOUNDS, served=version(0)).release

    def using(self, number: int) -> list[str]:
        return [
            name for name, agent in self.agents.items() if agent.manifest.created == version(number).manifest.created
        ]

    def versions(self) -> Versions:
        assert self.running.server.service.rollout is not None
        return self.running.server.service.rollout._versions


@asynccontextmanager
async def fleet(tmp_path: Path, *names: str, **settings: object) -> AsyncIterator[Fleet]:
    state = tmp_path / "state"
    async with edge(version(0), state=state, **settings) as running, AsyncExitStack() as stack:
        made = Fleet(running, state, tmp_path, stack)
        for name in names:
            await made.join(name)
        yield made


async def settle(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        await until(holds)


async def feed(agent: Agent, holds: Callable[[], bool]) -> None:
    """Have pictures answered, each of them, until it holds."""
    seed = 0
    async with asyncio.timeout(60):
        while not holds():
            record = await agent.infer(tiny.image(seed % 30)[0])
            assert record.status == "ok"
            seed += 1
