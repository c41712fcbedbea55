"""The soak's account finds what is planted in it, its slope finds a leak, and its diary times what it is to time."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.soaking import memory
from benchmarks.soaking.diary import Diary, Reconnection, Trouble
from benchmarks.soaking.footing import Footing
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


def calm(leak: float, moments: int = 12) -> list[tuple[float, float]]:
    """Of a process that is noisy, and grows by a cache's megabyte once."""
    chance = random.Random(3)
    return [
        (110.0 * at, 100 + leak * 110 * at / 3600 + chance.gauss(0, 0.02) + (at > moments - 3)) for at in range(moments)
    ]


def test_the_slope_finds_a_leak_and_no_step() -> None:
    none, two = (memory.slope_mb_per_hour(calm(leak)) for leak in (0.0, 2.0))
    assert none is not None
    assert two is not None
    assert none.least < 0 < none.most
    assert abs(none.likely) < 1 < two.least < two.likely


def test_the_slope_says_how_sure_it_is() -> None:
    line = [(60.0 * at, 50.0 + at / 60) for at in range(8)]
    assert memory.slope_mb_per_hour(line) == pytest.approx((1.0, 1.0, 1.0))
    wide, narrow = (memory.slope_mb_per_hour(calm(0.0, moments)) for moments in (6, 30))
    assert wide is not None
    assert narrow is not None
    assert narrow.most - narrow.least < (wide.most - wide.least) / 4


def test_sen_s_own_example() -> None:
    """Of his section 5, where the interval that holds 93 in a hundred is said to go from 26/7 to 35/8."""
    points = [(1, 9), (2, 15), (3, 19), (4, 20), (10, 45), (12, 55), (18, 78)]
    slope = memory.slope_mb_per_hour([(3600.0 * at, float(value)) for at, value in points])
    assert slope is not None
    assert slope.likely == 4
    assert 26 / 7 - 0.1 < slope.least < 4 < slope.most < 35 / 8 + 0.1


def test_few_calm_moments_have_no_slope() -> None:
    assert memory.slope_mb_per_hour(calm(5.0, 5)) is None


CHURN = """
import random, time
chance, held = random.Random(1), [bytes(900) for _ in range(40_000)]
held = held[::50]
print("ready", flush=True)
while True:
    for _ in range(200):
        held[chance.randrange(len(held))] = bytes(chance.randrange(600, 6000))
    time.sleep(0.001)
"""


async def test_what_a_process_has_in_use_is_told_and_what_it_loses_is_seen(tmp_path: Path) -> None:
    """Free memory is most of what it has; then two megabytes an hour that are planted, and none."""
    with Footing(tmp_path) as footing:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CHURN), stdout=asyncio.subprocess.PIPE, env=os.environ | footing.env | memory.ENV
        )
        assert process.stdout is not None
        await process.stdout.readline()
        before = memory.anonymous_mb(process.pid)
        slopes = []
        for leak in (0.0, 2.0):
            found = [await memory.held(footing, process.pid, leak * 110 / 3600) for _ in range(14)]
            held = [one for one in found if one is not None]
            slopes.append(memory.slope_mb_per_hour([(110.0 * at, one.in_use_mb) for at, one in enumerate(held)][2:]))
        process.kill()
        await process.wait()
        assert await memory.held(footing, process.pid) is None
    none, two = slopes
    assert before is not None
    assert held[0].in_use_mb < held[0].resident_mb < before - 15
    assert none is not None
    assert two is not None
    assert none.likely < 1 < two.least < 2.5


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
    diary.troubles.append(Trouble("freeze", "killed", frozenset({"d0"}), 31.0, 33.0))
    assert diary.reconnections() == [
        Reconnection("d0", "black-out", "", 2.0),
        Reconnection("d0", "", "freeze", 1.5),
    ]
    assert diary.up == 0


def test_a_device_whose_process_was_killed_is_kept_away_until_its_own_agent_begins() -> None:
    diary, both = Diary(), frozenset({"d0", "d1"})
    diary.troubles += [
        Trouble("kill", "swarm0", both, 10.0, own=True),
        Trouble("absence", "killed", both, 5.0, 9.0),
    ]
    for line in ("down d0 10.0", "down d1 10.0", "begin d0 12.0", "begin d1 14.0", "up d0 12.5", "up d1 14.25"):
        diary.hear(line.split())
    diary.troubles[0].mended_s = 14.5  # the process says that it is ready after all of its agents have begun
    assert diary.reconnections() == [Reconnection("d0", "kill", "", 0.5), Reconnection("d1", "kill", "", 0.25)]


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
