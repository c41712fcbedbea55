"""The deadline benchmark's parts between pure and whole: sums and claims, plots, the JPEG peer, one real run."""

from __future__ import annotations

import asyncio
import io
import time
from dataclasses import replace
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from benchmarks.deadlines import jpeg, links, plots, stress, tally, times, verdicts
from benchmarks.deadlines.oracle import Chosen, Option, Oracle
from benchmarks.deadlines.pictures import Pictures
from benchmarks.deadlines.plan import FULL, OURS, QUICK, USUAL, contenders, entries
from benchmarks.deadlines.rig import Contender, Job, Rig
from benchmarks.deadlines.tally import Fate, Outcome
from headwater.simulations.trace import LinkTrace
from tests import tiny
from tests.device.test_record import RECORD

if TYPE_CHECKING:
    from pathlib import Path

    from headwater.compression.bundle import Bundle

GOOD = Fate(
    due_s=0.0,
    latency_ms=50.0,
    answered=True,
    in_time=True,
    source="edge",
    action="send",
    mode=3,
    size=100,
    right=True,
    oracle_action="send",
    oracle_mode=4,
    oracle_size=200,
    oracle_right=True,
)
STEPPED = replace(GOOD, latency_ms=95.0, source="local", size=40)
HERE = replace(GOOD, latency_ms=5.0, source="local", action="local", size=0, right=False)
LATE = replace(GOOD, latency_ms=150.0, in_time=False)
NONE = replace(GOOD, latency_ms=None, answered=False, in_time=False, source="none", right=False)
HOPELESS = replace(NONE, oracle_action=None, oracle_right=False)


def outcome(*fates: Fate, contender: str = OURS, link: str = "wifi", deadline_ms: int = 100) -> Outcome:
    return Outcome(contender, link, 0, deadline_ms, tuple(replace(f, due_s=at / 5) for at, f in enumerate(fates)))


# ---------------------------------------------------------------- sums and claims


def test_a_row_counts_misses_where_the_oracle_has_an_answer() -> None:
    row = tally.row("row", [outcome(GOOD, LATE, NONE, HOPELESS), outcome(HERE, HERE, STEPPED, GOOD)])
    assert row.frames == 8
    assert row.missed == pytest.approx(100 * 2 / 7)
    assert (row.late, row.unanswered) == (12.5, 25.0)
    assert (row.edge, row.local) == (37.5, 37.5)
    assert (row.vain, row.oracle_edge) == (50.0, 87.5)
    assert row.right == pytest.approx(100 * 4 / 6)
    assert row.useful == pytest.approx(100 * 3 / 8)
    assert row.oracle == pytest.approx(100 * 7 / 8)
    assert row.size == pytest.approx((100 + 100 + 100 + 100 + 0 + 0 + 40 + 100) / 8)


def test_switches_are_changes_of_what_is_done() -> None:
    other = replace(GOOD, mode=5)
    assert tally.row("row", [outcome(GOOD, GOOD, other, HERE, HERE)]).switches == pytest.approx(50)


def test_the_claims_are_of_ours_and_name_the_peer() -> None:
    ours, mean = outcome(*[GOOD] * 98, LATE, NONE), outcome(GOOD, NONE, contender="mean bandwidth")
    misses, answered, points = verdicts.over_links([ours, mean])
    assert (misses.value, misses.holds, answered.value) == (2.0, False, 99.0)
    assert "50.0 %, ours there 2.0 %" in misses.peer
    assert points.value == pytest.approx(1.0)


def test_the_server_alone_is_judged_by_an_oracle_without_an_exit() -> None:
    alone = outcome(*[GOOD] * 9, NONE, contender="ours, server only")
    told = outcome(*[GOOD] * 19, NONE, contender="knows the present rate")
    missed, points = verdicts.without_exit([alone, outcome(LATE), told])
    assert (missed.value, missed.holds) == (10.0, False)
    assert "knows the present rate, reckoned, hedged: 5.0 % missed, 5.0 points below" in missed.peer
    assert points.value == pytest.approx(10.0)
    assert "100.0 % right, an answer to 100.0 % of the frames" in missed.peer


@pytest.mark.parametrize(
    ("after", "missed", "adapted"),
    [
        ([GOOD, GOOD, GOOD], 0, 0),
        ([STEPPED, STEPPED, GOOD, GOOD], 0, 2),
        ([LATE, STEPPED, NONE, HERE, HERE], 3, 3),
        ([STEPPED, GOOD, STEPPED, GOOD], 0, 3),
        ([STEPPED, STEPPED], 0, 2),
    ],
)
def test_recovery_is_counted_in_frames(after: list[Fate], missed: int, adapted: int) -> None:
    assert (verdicts.back_in_time(after), verdicts.fitting_again(after)) == (missed, adapted)


@pytest.mark.parametrize(
    ("in_time", "back_s"),
    [("++++++", 0.0), ("+-+++++", 0.2), ("----+++++", 0.4), ("+++---+-", None), ("+++-+++++-", 0.4)],
)
def test_stress_is_over_when_five_in_a_row_are_in_time(in_time: str, back_s: float | None) -> None:
    records = [replace(RECORD, deadline_ms=100.0, latency_ms={"+": 50.0, "-": 150.0}[each]) for each in in_time]
    during = tuple((at / 10, record) for at, record in enumerate(records))
    assert stress.Stressed((), during, ()).back_s == (back_s and pytest.approx(back_s))


def test_only_frames_after_a_drop_count_as_its() -> None:
    before = [LATE] * round(links.FIRST_DROP_S * 5)
    (missed, adapted) = verdicts.after_drops([outcome(*before, LATE, GOOD, GOOD, link="drop-1k")], ["drop-1k"])
    assert (missed.value, adapted.value) == (1, 1)
    (missed, _) = verdicts.after_drops([outcome(LATE)], ["drop-1k"])
    assert missed.value is None


def test_every_run_is_planned_with_the_same_pictures_for_all(tiny_pictures: Pictures) -> None:
    who = [Contender(OURS, "ours"), Contender("other", "mean")]
    every = links.generated()
    usual = entries(USUAL, who, every, [0], tiny_pictures)
    assert len(usual) == len(every) * 3 + 4
    full = entries(FULL, who, every, [0, 1], tiny_pictures)
    assert len(full) == len(every) * 3 * 2 * 2
    same = {(entry.link.name, entry.seed): entry.numbers for entry in full}
    assert all(same[entry.link.name, entry.seed] == entry.numbers for entry in full)
    assert len(entries(QUICK, who, every, [0], tiny_pictures)) == 2


def test_what_is_reckoned_has_fates_as_what_was_run(tiny_pictures: Pictures) -> None:
    send = Option("send", 3, 0.9, 0.001)
    did = [Chosen(send, 0.2, 40), Chosen(send, 0.4, 40), Chosen(None)]
    chosen = [Chosen(send, 0.1, 40), Chosen(send, 0.1, 40), Chosen(None)]
    good, late, none = tally.reckoned([0.0, 0.2, 0.4], did, chosen, [0, 1, 2], tiny_pictures, 0.3)
    assert (good.in_time, good.source, good.latency_ms, good.size) == (True, "edge", 200.0, 40)
    assert good.right == good.oracle_right == tiny_pictures.right(send, 0)
    assert (late.missed, late.source, late.right, late.size) == (True, "none", False, 40)
    assert (none.missed, none.action, none.mode) == (False, "skip", -1)


# ---------------------------------------------------------------- plots


def test_a_plot_is_an_svg_with_a_mark_for_each_frame(tmp_path: Path) -> None:
    one = outcome(GOOD, STEPPED, HERE, LATE, NONE, HOPELESS, link="nb-iot x1/20")
    assert [plots.kind(fate) for fate in one.fates] == ["edge", "stepped", "here", "missed", "missed", "missed"]
    link = links.BenchLink("nb-iot x1/20", lambda _: LinkTrace.constant("nb-iot", 20_000))
    (file,) = plots.write([one, outcome(GOOD, contender="other")], [link], tmp_path / "plots").iterdir()
    assert file.name == "nb-iot-x1-20-100ms-0.svg"
    drawn = ET.fromstring(file.read_text(encoding="utf-8"))  # noqa: S314 - our own
    marks = [each.get("class") for each in drawn.iter() if each.get("class") in plots.KINDS]
    assert {name: marks.count(name) for name in plots.KINDS} == {"edge": 3, "stepped": 3, "here": 3, "missed": 7}


# ---------------------------------------------------------------- JPEG


def test_a_picture_without_tables_is_decoded_as_the_whole_file_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
    picture = Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC)
    data = jpeg.encode(picture, (32, 32), 50)
    file = io.BytesIO()
    picture.resize((32, 32), Image.Resampling.BILINEAR).save(file, "JPEG", quality=50)
    assert len(data) < len(file.getvalue()) - 200
    assert jpeg.decode(jpeg.tables("L", 50), data).tobytes() == Image.open(file).tobytes()


async def test_the_jpeg_service_answers_as_the_whole_model_does(tiny_bundle: Bundle) -> None:
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    service = jpeg.Service(tiny_bundle, 90)
    serving = asyncio.create_task(jpeg.serve(service, ready.set_result))
    client = jpeg.Client()
    await client.open(f"127.0.0.1:{await ready}")
    pictures = [jpeg.encode(Image.fromarray(tiny.image(seed)[0]), (32, 32), 90) for seed in range(12)]
    answers = await asyncio.gather(*(client.ask(data, time.monotonic() + 600) for data in pictures))
    for seed, (data, scores) in enumerate(zip(pictures, answers, strict=True)):
        assert scores is not None
        assert scores.tobytes() == service.answer(data)
        assert int(scores.argmax()) == tiny.labels(seed)[0]
    assert await client.ask(pictures[0], time.monotonic() - 1) is None
    await client.close()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


# ---------------------------------------------------------------- real processes


@pytest.fixture(scope="module")
def tiny_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures of the tiny bundle's first task."""
    folder = tmp_path_factory.mktemp("shapes")
    for seed in range(48):
        file = folder / tiny.TASKS[0].labels[tiny.labels(seed)[0]] / f"{seed}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(tiny.image(seed)[0]).save(file)
    return folder


@pytest.fixture(scope="module")
def tiny_pictures(tiny_bundle: Bundle, tiny_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return Pictures(tiny_bundle, str(tiny_source), 12, tmp_path_factory.mktemp("pictures"))


def test_every_picture_s_bytes_and_answers_are_those_of_the_bundle(
    tiny_bundle: Bundle, tiny_pictures: Pictures
) -> None:
    assert tiny_pictures.sizes.shape == (12, 16)
    seed = int(tiny_pictures.samples[3].name.split("/")[-1].removesuffix(".png"))
    frame = tiny.frame(tiny_bundle, seed, 9)
    assert tiny_pictures.sizes[3, 9] == len(tiny_bundle.frames().pack(frame))


async def test_runs_side_by_side_leave_a_record_of_each_frame(
    tiny_bundle: Bundle, tiny_pictures: Pictures, tmp_path: Path
) -> None:
    path = tiny_bundle.save(tmp_path / "tiny.zip")
    async with Rig(path, "shape", tmp_path / "rig", jobs=3, qualities=[50]) as rig:
        alone = await times.measure(rig, tiny_bundle, tiny_pictures, rounds=2)
        assert 0 < alone.costs.up_bytes < 200
        assert alone.costs.down_bytes > 12
        assert set(alone.send_ms) == set(alone.local_ms) == {0.25, 0.5, 0.75, 1.0}
        options = times.options(tiny_bundle, tiny_pictures, alone, whole=True)
        who = {each.kind: each for each in contenders(tiny_bundle, options, alone)}
        link = LinkTrace.constant("wide", 1e8)
        wave = [Job(who[kind], link, tiny_pictures.samples[:6], 60_000, 50.0) for kind in ("ours", "local", "jpeg")]
        ours, local, picture = await rig.wave(wave)
        others = [Job(who[kind], link, tiny_pictures.samples[:6], 60_000, 50.0) for kind in ("mean", "server")]
        mean, server = await rig.wave(others)
    for ran in (ours, local, picture, mean, server):
        assert sorted(ran.records) == list(range(6))
        assert all(record.in_time and record.truth for record in ran.records.values())
    assert {record.source for record in local.records.values()} == {"local"}
    assert {record.source for ran in (mean, server) for record in ran.records.values()} == {"edge"}
    assert picture.up_bytes > sum(record.bytes for record in picture.records.values())
    frames = [(wave[0].due_s(at), dict(enumerate(tiny_pictures.sizes[at].tolist()))) for at in range(6)]
    chosen = Oracle.choose(link, options, alone.costs, frames, 60.0)
    fates = tally.fates(wave[0], ours, chosen, range(6), tiny_pictures)
    assert all(fate.in_time and not fate.missed for fate in fates)
    among = times.side_by_side(alone, [(wave[0], ours), (others[1], server)])
    assert len(among.scatter) == 6 + sum(record.source == "edge" for record in ours.records.values())
    narrow = replace(wave[0], link=LinkTrace.constant("narrow", 1e5))
    assert times.side_by_side(alone, [(narrow, ours)]).scatter == alone.scatter
    best = max(option.accuracy for option in options)
    assert all(one.option is not None and one.option.accuracy == best for one in chosen)
