"""Servers that are killed at random moments while a device sends, and what of its frames is then where.

Each pair of a server with an archive and a device with a spool is on its own. The device keeps every frame; the server
is killed (SIGKILL), started again at once on the same port and archive, and killed again. In the end the device waits
until its spool is empty, and the ids that it kept are compared with those in the archive.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks import claims
from benchmarks.deadlines.device import Plan
from benchmarks.deadlines.rig import READY_S, Server
from benchmarks.deadlines.verdicts import NAME
from headwater.device.record import read_records

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.claims import Claim
    from benchmarks.deadlines.pictures import Pictures
    from benchmarks.deadlines.rig import Rig, Worker

FPS = 10.0
DEADLINE_MS = 300
LONGEST_S = 600.0
BETWEEN_S = (0.2, 1.2)
"""From a server's being ready to its being killed."""


@dataclass(frozen=True)
class Survived:
    """A device, and the server that was killed."""

    kills: int
    frames: int
    """Pictures that were taken."""
    unanswered: int
    late: int
    kept: frozenset[str]
    """Ids of the frames that the device put into its spool, in hex."""
    stored: tuple[str, ...]
    """Ids in the server's archive."""
    left: int
    """Frames in the spool at the end."""


async def run(rig: Rig, bundle: Path, pictures: Pictures, folder: Path, kills: int, pairs: int) -> list[Survived]:
    """Kill servers so often in all, spread over so many pairs; the devices are the rig's."""
    shares = [kills // pairs + (at < kills % pairs) for at in range(pairs)]
    devices = [await rig.worker(at) for at in range(pairs)]
    return await asyncio.gather(
        *(_pair(devices[at], bundle, pictures, folder / f"pair{at}", share, at) for at, share in enumerate(shares))
    )


async def _pair(device: Worker, bundle: Path, pictures: Pictures, folder: Path, kills: int, seed: int) -> Survived:
    _clear(folder)
    archive, records, kept = folder / "archive.db", folder / "records.jsonl", folder / "kept.txt"
    chance = random.Random(seed)
    count = int(LONGEST_S * FPS)
    async with Server(bundle, folder, "--archive", str(archive)) as server:
        samples = [pictures.samples[at % len(pictures)] for at in range(count)]
        plan = Plan(
            "ours",
            server.address,
            tuple(str(sample.path.resolve()) for sample in samples),
            tuple(sample.label for sample in samples),
            pictures.task.name,
            DEADLINE_MS,
            FPS,
            str(records.resolve()),
            {"until_told": True, "kept": str(kept.resolve())},
            {"keep": "all", "spool": str((folder / "spool.db").resolve()), "retry_s": 0.5},
        )
        device.tell(plan.to_json())
        await device.hear("ready", READY_S)
        device.tell(f"begin {asyncio.get_running_loop().time()}")
        for _ in range(kills):
            await asyncio.sleep(chance.uniform(*BETWEEN_S))
            await server.kill()
            await server.start()
        await asyncio.sleep(BETWEEN_S[1])
        device.tell("stop")
        await device.hear("done", READY_S)
    found = list(read_records(records))
    frames = max(int(record.name) for record in found) + 1
    answered = [record for record in found if record.status == "ok"]
    return Survived(
        kills,
        frames,
        frames - len({record.name for record in answered}),
        sum(not record.in_time for record in answered),
        frozenset(kept.read_text(encoding="ascii").split()),
        _stored(archive),
        _left(folder / "spool.db"),
    )


def _clear(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()


def _stored(archive: Path) -> tuple[str, ...]:
    with closing(sqlite3.connect(archive)) as database:
        return tuple(identity.hex() for (identity,) in database.execute("SELECT id FROM frames"))


def _left(spool: Path) -> int:
    with closing(sqlite3.connect(spool)) as database:
        return int(database.execute("SELECT count(*) FROM kept").fetchone()[0])


def claims_of(survived: list[Survived]) -> list[Claim]:
    """No frame without an answer, and every kept one in the archive once."""
    kills, frames = sum(one.kills for one in survived), sum(one.frames for one in survived)
    lost = sum(len(one.kept - set(one.stored)) for one in survived)
    twice = sum(len(one.stored) - len(set(one.stored)) for one in survived)
    strange = sum(len(set(one.stored) - one.kept) for one in survived)
    late = sum(one.late for one in survived)
    kept, left = sum(len(one.kept) for one in survived), sum(one.left for one in survived)
    print(
        f"{kills} kills of the server: {frames} frames, {late} of them answered late; {kept} kept, {lost} of them "
        f"not in the archive, {twice} there twice, {strange} there that were never kept, {left} still in the spool"
    )
    what, peer = f"{kills} kills of the server", f"{frames} frames, every one kept; ids compared on both sides"
    return [
        claims.at_most(
            NAME,
            f"frames unanswered, {what}",
            sum(one.unanswered for one in survived),
            unit="frames",
            target=0,
            peer=f"{frames} frames",
        ),
        claims.at_most(
            NAME,
            f"kept frames lost or stored twice, {what}",
            lost + twice + strange,
            unit="frames",
            target=0,
            peer=peer,
        ),
    ]
