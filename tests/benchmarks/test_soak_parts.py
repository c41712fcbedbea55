"""The soak's account finds what is planted in it, its slope finds a leak, and its diary times what it is to time."""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
from dataclasses import replace

import pytest

from benchmarks.soaking import memory
from benchmarks.soaking.diary import Diary, Trouble
from benchmarks.soaking.ledger import Account, Entry, Row, account
from benchmarks.soaking.plan import KINDS, SERVERS, Member, Orders, Size, devices

EDGE, LOCAL = Entry("a/1", "edge", "ok", ""), Entry("a/2", "local", "ok", "no answer before the deadline")
SENT_LATER, REFUSED = replace(LOCAL, name="a/3"), Entry("a/4", "none", "expired", "no answer before the deadline")
RECORDS = [EDGE, LOCAL, SENT_LATER, REFUSED]
ROW = Row("a", "03", "a/3", "ok")
NAMES = {one.name for one in RECORDS}


def book(
    taken: set[str] = NAMES,
    records: list[Entry] = RECORDS,
    kept: dict[str, list[str]] | None = None,
    rows: list[Row] | None = None,
    keeps_all: frozenset[str] = frozenset(),
) -> Account:
    rows = [ROW] if rows is None else rows
    return account(taken, records, {"a/3": ["03"]} if kept is None else kept, rows, keeps_all)


def test_every_fate_has_its_count() -> None:
    found = book()
    assert found.wrong == []
    assert found.fates == {"server": 1, "local": 1, "delivered": 1, "refused": 1}
    assert found.reasons == {"expired: no answer before the deadline": 1}
    assert found.frames == 4


@pytest.mark.parametrize(
    ("planted", "says"),
    [
        ({"taken": NAMES | {"a/5"}}, "lost: a/5 has no record"),
        ({"records": [EDGE, LOCAL, REFUSED]}, "lost: a/3 has no record, but is in the archive"),
        ({"records": [*RECORDS, EDGE]}, "twice: a/1 has two records"),
        ({"records": [*RECORDS, replace(EDGE, name="b/1")]}, "unknown: b/1"),
        ({"records": [*RECORDS[:3], replace(REFUSED, detail="")]}, "lost: a/4 was refused without a reason"),
        ({"rows": [ROW, replace(ROW, id="04")]}, "twice: a/3 is in the archive twice"),
        ({"rows": [ROW, replace(ROW, id="01", name="a/1")]}, "twice: a/1 was answered, and is in the archive"),
        ({"rows": [ROW, replace(ROW, name="c/1")]}, "unknown: c/1"),
        ({"rows": [replace(ROW, status="waiting")]}, "unanswered: a/3, waiting"),
        ({"kept": {"a/3": ["03"], "a/2": ["02"]}}, "lost: a/2 kept as 02"),
        ({"kept": {"a/3": ["03", "02"]}}, "twice: a/3 kept as 03, 02"),
    ],
)
def test_what_is_wrong_is_found(planted: dict[str, object], says: str) -> None:
    assert says in book(**planted).wrong  # type: ignore[arg-type]


def test_who_keeps_everything_may_have_answered_frames_in_the_archive() -> None:
    rows = [ROW, replace(ROW, id="01", name="a/1")]
    assert book(rows=rows, keeps_all=frozenset({"a/1"})).wrong == []


@pytest.mark.parametrize(("leak", "least", "most"), [(0.0, -0.3, 0.3), (60.0, 59.0, 61.0)])
def test_the_slope_finds_a_leak_and_no_bursts(leak: float, least: float, most: float) -> None:
    chance = random.Random(3)
    samples = [
        (float(second), 100 + leak * second / 3600 + chance.gauss(0, 0.05) + (20 if second % 97 < 4 else 0))
        for second in range(1800)
    ]
    samples[:600] = [(second, mb + 30 * (1 - math.exp(-second / 60))) for second, mb in samples[:600]]
    slope = memory.slope_mb_per_hour(samples, 600.0)
    assert slope is not None
    assert least < slope < most


def test_a_short_run_has_no_slope() -> None:
    assert memory.slope_mb_per_hour([(float(second), 100.0) for second in range(100)], 0.0) is None


async def test_memory_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "EVERY_S", 0.001)
    samples: dict[str, list[tuple[float, float]]] = {}
    watching = asyncio.create_task(memory.watch({"own": os.getpid, "gone": lambda: 1 << 30}, samples))
    while len(samples.get("own", [])) < 3:  # noqa: ASYNC110 - a sampler has no event
        await asyncio.sleep(0.001)
    watching.cancel()
    assert set(samples) == {"own"}
    assert all(mb > 1 for _, mb in samples["own"])


def test_reconnections_count_from_the_end_of_what_caused_them() -> None:
    diary = Diary()
    for line in ("up d0 1.0", "down d0 10.0", "up d0 17.0", "down d0 30.0", "up d0 31.5", "down d0 40.0"):
        diary.hear(line.split())
    diary.troubles += [
        Trouble("black-out", "link0", frozenset({"d0"}), 8.0, 15.0),
        Trouble("black-out", "link1", frozenset({"d1"}), 8.0, 16.0),
        Trouble("freeze", "killed", frozenset({"d0"}), 20.0, 29.0),
        Trouble("kill", "killed", frozenset({"d0"}), 39.0, None),
    ]
    assert diary.reconnections_s() == [2.0, 1.5]
    assert diary.up == 0


def test_the_diary_resumes_a_device_with_what_it_heard() -> None:
    diary, member = Diary(), Member("d0", "deaf", ("h:1",), 0, ())
    for line in ("take d0/1", "take d0/2", "keep d0/1 ab", "up d0 1.0", "fell d0 Error()", "nonsense"):
        diary.hear(line.split())
    assert diary.resumed(member) == Member("d0", "deaf", ("h:1",), 2, ("d0/1",))
    assert diary.fallen == ["d0 Error()", "a swarm said 'nonsense'"]
    diary.restless(["d0", "d1"])
    assert diary.spells["d0"][-1].ended_s is None


def test_every_kind_of_device_meets_every_server() -> None:
    size = Size(streams=500, agents=4)
    swarms, agents = devices(size)
    every = [one for swarm in swarms for one in swarm]
    assert (len(swarms), len(every), len(agents)) == (5, 496, 4)
    assert len({one.name for one in [*every, *agents]}) == 500
    assert {(one.kind, one.servers) for one in every} == {(kind, servers) for kind in KINDS for servers in SERVERS}
    orders = Orders("b.zip", "f", 0.1, (Member("d0", "deaf", ("h:1",), 3, ("d0/1",)),))
    assert json.loads(json.dumps(orders.plain()))["members"][0]["kept"] == ["d0/1"]
