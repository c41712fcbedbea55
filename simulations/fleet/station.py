"""A real device whose pictures come at moments that it is told: the package's own agent, in a process of its own.

    python -m headwater.simulations.fleet.station BUNDLE

    standard input                          standard output
    ------------------------------------    ------------------------------------------------------------------
    a line of JSON, :class:`Plan`           ``ready``, once the agent is connected
    ``begin SECONDS``, monotonic            ``ran``, once every picture has its record and nothing is on its way
    ``end``                                 ``done``, once the connection is closed; then the next plan may come

A picture's time runs from when it was due, whether the device keeps up or not. Each leaves a record
(device/record.py) in the plan's file, named by its number.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from headwater.compression.bundle import Bundle
from headwater.compression.datasets import read_image
from headwater.device.agent import Agent
from headwater.device.control.controller import Action, Decision
from headwater.device.feed import Picture
from headwater.device.settings import DeviceSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from headwater.device.control.controller import Observation, Situation

CONNECT_S = 60.0


@dataclass(frozen=True)
class Plan:
    """One run of a station."""

    server: str
    """Address to connect to, host:port."""
    name: str
    task: str
    pictures: tuple[str, ...]
    """File of each frame's picture."""
    due_s: tuple[float, ...]
    """When each is taken, from the moment that ``begin`` names."""
    records: str
    """File to write."""
    deadline_ms: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    sweep: tuple[tuple[int, str], ...] = ()
    """See :class:`headwater.simulations.fleet.traffic.Traffic`."""
    landing_s: float = 0.0
    exit: bool = True
    """Whether the bundle's local exit is there."""

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Plan:
        """Read a line."""
        plain = json.loads(line)
        lists = {key: tuple(plain[key]) for key in ("pictures", "due_s")}
        sweep = tuple((mode, action) for mode, action in plain["sweep"])
        return cls(**{**plain, **lists, "sweep": sweep})


class SweepController:
    """Takes modes and actions in turn, whatever happens: for measuring what each takes."""

    def __init__(self, decisions: Sequence[tuple[int, str]]) -> None:
        """Modes by index, and what is done with each."""
        actions: dict[str, Action] = {action: action for action in get_args(Action)}
        self._decisions = [Decision(mode, action=actions[action]) for mode, action in decisions]
        self._next = 0

    def choose(self, situation: Situation) -> Decision:
        """The next one."""
        del situation
        self._next += 1
        return self._decisions[(self._next - 1) % len(self._decisions)]

    def refine(self, decision: Decision, situation: Situation, confidence: float | None) -> Decision:
        """Keep to it."""
        del situation, confidence
        return decision

    def observe(self, observation: Observation) -> None:
        """Learn nothing."""


def without_exit(bundle: Bundle) -> Bundle:
    """The same bundle, by its id as well, as if it had no local exit."""
    other = copy(bundle)
    other.manifest = replace(bundle.manifest, exit=None)
    return other


async def run(bundle: Bundle, plan: Plan) -> None:
    """Do what a plan says."""
    bundle = bundle if plan.exit else without_exit(bundle)
    settings = DeviceSettings(
        server=(plan.server,),
        name=plan.name,
        tasks=(plan.task,),
        deadline_ms=plan.deadline_ms,
        records=Path(plan.records),
        **plan.settings,
    )
    controller = SweepController(plan.sweep) if plan.sweep else None
    read = cache(read_image)
    images = [read(Path(path)) for path in plan.pictures]
    async with Agent(bundle, settings=settings, controller=controller, connect_timeout_s=CONNECT_S) as agent:
        say("ready")
        begin_s = float((await heard()).removeprefix("begin "))

        async def pictures() -> AsyncIterator[Picture]:
            for number, (image, due_s) in enumerate(zip(images, plan.due_s, strict=True)):
                await asyncio.sleep(max(begin_s + due_s - time.monotonic(), 0))
                yield Picture(str(number), image, {}, begin_s + due_s)

        await agent.run(pictures())
        await landed(agent, plan.landing_s)
        say("ran")
        await heard()
    say("done")


async def landed(agent: Agent, patience_s: float) -> None:
    """Wait until no frame is on its way: those that were given up still cross the link, and are answered."""
    end_s = time.monotonic() + patience_s
    while agent.link.window.flying and time.monotonic() < end_s:  # noqa: ASYNC110 - a window tells of waiting frames only
        await asyncio.sleep(0.05)


async def heard() -> str:
    """The next line on standard input, without its end."""
    line: str = await asyncio.to_thread(sys.stdin.readline)
    return line.rstrip("\n")


def say(word: str) -> None:
    """Write a line to standard output, for whoever runs this."""
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


async def main() -> None:
    """Do every plan that comes."""
    bundle = Bundle.load(Path(sys.argv[1]))
    while line := await heard():
        await run(bundle, Plan.from_json(line))


if __name__ == "__main__":
    asyncio.run(main())
