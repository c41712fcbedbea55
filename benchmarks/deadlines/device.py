"""The device of a run, a process of its own that does one run after another:

    stdin   one line a run: a plan as JSON; then, when everything is ready, "begin SECONDS" (of the monotonic clock)
    stdout  "ready" once it is connected, "done" once every frame has its record

    python -m benchmarks.deadlines.device BUNDLE

Pictures are taken by the clock, ``fps`` a second from the beginning, whether the device keeps up or not: a frame's time
runs from when it was due. Each leaves a record (device/record.py) in the plan's file, named by its number.

A contender other than ours has the same agent with another controller, and a bundle without a local exit, so that
nothing steps in for it; a frame that is not answered by the deadline is given up.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import time
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.deadlines.jpeg import Client, encode
from benchmarks.deadlines.peers import CycleController, LocalController, MeanController
from headwater.compression.bundle import Bundle
from headwater.compression.datasets import read_image
from headwater.device.agent import Agent
from headwater.device.answers import from_logits
from headwater.device.control.controller import Decision, FixedController
from headwater.device.feed import Picture
from headwater.device.kept import KeptFrame
from headwater.device.record import FrameRecord, RecordFile
from headwater.device.settings import DeviceSettings
from headwater.device.spool import Spool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from PIL import Image

    from headwater.device.control.controller import Controller

CONNECT_S, EMPTY_S = 30.0, 60.0


@dataclass(frozen=True)
class Plan:
    """What a device is told of one run."""

    contender: str
    """ours, mean, fixed, local, cycle or jpeg; see :func:`controller`."""
    server: str
    """Address to connect to, host:port."""
    pictures: tuple[str, ...]
    """Files, in the order of their frames."""
    labels: tuple[str, ...]
    """The right label of each."""
    task: str
    deadline_ms: int | None
    fps: float
    records: str
    """File to write; replaced if it is there."""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Of the contender: mode, side, quality, encode_ms. Of a run: until_told (a line ends it), kept (file for ids)."""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    """More of the agent's settings."""

    @classmethod
    def from_json(cls, line: str) -> Plan:
        """Read a line."""
        plain = json.loads(line)
        return cls(**{**plain, "pictures": tuple(plain["pictures"]), "labels": tuple(plain["labels"])})

    def to_json(self) -> str:
        """One line."""
        return json.dumps(dataclasses.asdict(self))


def controller(plan: Plan, bundle: Bundle) -> Controller | None:
    """The contender's; None for the agent's own rule."""
    options = plan.options
    match plan.contender:
        case "mean":
            assert plan.deadline_ms is not None
            encode_ms = {float(width): ms for width, ms in options["encode_ms"].items()}
            return MeanController(bundle.manifest.modes, encode_ms, plan.deadline_ms)
        case "fixed":
            return FixedController(options["mode"])
        case "local":
            return LocalController(options["mode"])
        case "cycle":
            return CycleController([Decision(mode, action=action) for mode, action in options["decisions"]])
    return None


def without_exit(bundle: Bundle) -> Bundle:
    """The same bundle, by its id as well, as if it had no local exit."""
    other = Bundle.__new__(Bundle)
    other.__dict__.update(bundle.__dict__)
    other.manifest = dataclasses.replace(bundle.manifest, exit=None)
    return other


async def run_agent(bundle: Bundle, plan: Plan) -> None:
    """One run of ours, or of a contender that has another controller."""
    settings = DeviceSettings(
        deadline_ms=plan.deadline_ms,
        fps=plan.fps,
        tasks=(plan.task,),
        records=Path(plan.records),
        name=Path(plan.records).stem,
        **{key: Path(value) if key == "spool" else value for key, value in plan.settings.items()},
    )
    own = plan.contender in {"ours", "local", "cycle"}
    shown = bundle if own else without_exit(bundle)
    images = opened(plan)
    async with AsyncExitStack() as stack:
        if "kept" in plan.options:
            stack.enter_context(noted(Path(plan.options["kept"])))
        made = Agent(shown, plan.server, settings, controller=controller(plan, bundle), connect_timeout_s=CONNECT_S)
        agent = await stack.enter_async_context(made)
        begin_s = await begun()
        told = asyncio.create_task(asyncio.to_thread(sys.stdin.readline)) if "until_told" in plan.options else None
        done: list[FrameRecord] = []
        await agent.run(due(plan, images, begin_s, told), done.append)
        if agent.spool is not None:
            await emptied(agent.spool, sum(record.status != "skipped" for record in done))


@contextmanager
def noted(file: Path) -> Iterator[None]:
    """Write down the id of every frame that is put into a spool, before it is."""
    keep = Spool.keep
    with file.open("w", encoding="ascii") as ids:

        def keep_and_note(spool: Spool, frame: KeptFrame) -> None:
            print(frame.id.hex(), file=ids, flush=True)
            keep(spool, frame)

        Spool.keep = keep_and_note  # type: ignore[method-assign]
        try:
            yield
        finally:
            Spool.keep = keep  # type: ignore[method-assign]


async def emptied(spool: Spool, count: int) -> None:
    """Wait until so many frames were kept and a server has stored them all; gives up after a while."""
    end_s = time.monotonic() + EMPTY_S
    while (spool.stats.frames or spool.stats.kept < count) and time.monotonic() < end_s:  # noqa: ASYNC110 - a spool is emptied by several threads
        await asyncio.sleep(0.05)


async def due(
    plan: Plan, images: list[Image.Image], begin_s: float, told: asyncio.Task[str] | None = None
) -> AsyncIterator[Picture]:
    """Each picture when it is due; taken then, even if it is asked for later. A line that is told ends them."""
    for number, (image, label) in enumerate(zip(images, plan.labels, strict=True)):
        due_s = begin_s + number / plan.fps
        await asyncio.sleep(max(due_s - time.monotonic(), 0))
        if told is not None and told.done():
            return
        yield Picture(str(number), image, {plan.task: label}, due_s)


def opened(plan: Plan) -> list[Image.Image]:
    """The pictures, each file decoded once."""
    read = cache(read_image)
    return [read(Path(path)) for path in plan.pictures]


async def run_jpeg(bundle: Bundle, plan: Plan) -> None:
    """One run of the contender that sends pictures."""
    images = opened(plan)
    client, labels = Client(), bundle.manifest.tasks[0].labels
    await client.open(plan.server)
    begin_s = await begun()
    with RecordFile(Path(plan.records)) as records:

        async def answer(picture: Picture) -> None:
            records.write(await ask(client, plan, picture, labels))

        async with asyncio.TaskGroup() as group:
            async for picture in due(plan, images, begin_s):
                group.create_task(answer(picture))
    await client.close()


async def ask(client: Client, plan: Plan, picture: Picture, labels: tuple[str, ...]) -> FrameRecord:
    """Code a picture, have it answered, and say how that went."""
    assert plan.deadline_ms is not None
    begin_s = time.monotonic()
    data = encode(picture.image, (plan.options["side"], plan.options["side"]), plan.options["quality"])
    sent_s = time.monotonic()
    scores = await client.ask(data, picture.taken_s + plan.deadline_ms / 1e3)
    now_s = time.monotonic()
    return FrameRecord(
        sequence=int(picture.name) + 1,
        name=picture.name,
        taken=datetime.now(UTC).isoformat(timespec="milliseconds"),
        source="none" if scores is None else "edge",
        status="expired" if scores is None else "ok",
        detail="",
        mode=0,
        width=0.0,
        gain=0,
        groups=0,
        bytes=len(data),
        attempts=1,
        latency_ms=(now_s - picture.taken_s) * 1e3,
        prepare_ms=0.0,
        head_ms=0.0,
        code_ms=(sent_s - begin_s) * 1e3,
        wait_ms=0.0,
        round_trip_ms=(now_s - sent_s) * 1e3,
        results={} if scores is None else {plan.task: from_logits(labels, scores)},
        truth=picture.truth,
        deadline_ms=plan.deadline_ms,
    )


async def begun() -> float:
    """Say that all is ready; the moment at which the first picture is due."""
    print("ready", flush=True)
    line = await asyncio.to_thread(sys.stdin.readline)
    return float(line.split()[1])


async def main() -> None:
    """Do every run that is asked for."""
    bundle = Bundle.load(Path(sys.argv[1]))
    while line := await asyncio.to_thread(sys.stdin.readline):
        plan = Plan.from_json(line)
        await (run_jpeg if plan.contender == "jpeg" else run_agent)(bundle, plan)
        print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
