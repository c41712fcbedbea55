"""The last act: who gets which pictures, what is counted, and how it is told; the whole of it is in the slow tests."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from headwater.compression.bundle import Bundle
from headwater.compression.datasets import open_dataset, split
from headwater.server.federation.survey import RoundFacts
from headwater.simulations.demo import act as acts
from headwater.simulations.demo import watch
from headwater.simulations.demo.act import Act, Span, lay_out, why_not
from headwater.simulations.demo.act_view import facts, lost_line
from headwater.simulations.demo.report_act import last_act, result
from headwater.simulations.demo.run import Run
from headwater.simulations.samples import Sample, take_samples
from tests import learnable
from tests.simulations.demo import runs

OLD, NEW = "0000000000", "1111111111"
ROUND = RoundFacts(1, "closed", 100.0, 103.5, {"believed": 2}, 1234, 567, 0.0, {})


@pytest.fixture
def act(tmp_path: Path) -> Act:
    """Two devices; the first changed after eight frames of ten and lost one, the second after five."""
    made = runs.samples(tmp_path / "pictures", 6)
    tallies = [runs.tally(made, title="slow"), runs.tally(made, runs.FAST, "fast")]
    for tally, first in zip(tallies, (8, 5), strict=True):
        for at in range(10):
            shown = runs.record(at % 6, taken_s=at * 0.1, bundle=OLD if at < first else NEW)
            tally.add(replace(shown, sequence=at + 1))
    tallies[0].records[3] = replace(tallies[0].records[3], status="expired", source="none", results={})
    spans = [Span("federated round", 0.0, 0.4), Span("swapping", 0.4, 1.0)]
    return Act(tmp_path, OLD, runs.LABELS, tallies, 24, 6, spans, ROUND, new=NEW, passed="+0.00 points in the mean")


@pytest.fixture
def run(act: Act, tiny_bundle: Bundle, tmp_path: Path) -> Run:
    made = runs.run(tiny_bundle, tmp_path)
    made.act = act
    return made


def test_frames_are_counted_by_the_bundle_that_coded_them(act: Act) -> None:
    assert (len(act.answered(OLD)), len(act.answered(NEW)), act.lost) == (7 + 5, 2 + 5, 1)
    assert lost_line(act) == f"20 frames: 12 answered by {OLD}, 7 by {NEW}, 1 lost"


def test_a_frame_that_no_record_tells_of_is_lost(act: Act) -> None:
    del act.tallies[1].records[4]
    assert act.lost == 2


def test_before_and_after_are_of_the_same_pictures(act: Act) -> None:
    # The first device sent pictures 2 and 3 with the new bundle, and 3 was not answered with the old one; the second
    # sent 0 to 4 with the old and 5, 0, 1, 2, 3 with the new one.
    pictures, before, after = act.paired() or (0, 0.0, 0.0)
    assert (pictures, before, after) == (1 + 4, 1.0, 1.0)
    last = act.tallies[1].records[-1]  # picture 3, with the new bundle
    wrong = next(label for label in runs.LABELS if label != act.tallies[1].truth(last))
    act.tallies[1].records[-1] = runs.record(3, taken_s=0.9, label=wrong, bundle=NEW)
    assert act.paired() == (5, 1.0, pytest.approx(0.8))


def test_nothing_is_compared_before_the_swap(act: Act) -> None:
    act.new = ""
    assert act.paired() is None
    assert not any(act.swapped(tally, 1) for tally in act.tallies)


def test_the_report_has_all_of_it(run: Run) -> None:
    assert run.act is not None
    text = last_act(run)
    for part in ("A round and a swap", "1,234 bytes", "3.5 s", "federated round", "frames lost"):
        assert part in text
    assert text.count(f"{NEW}, ok</title>") == 7
    assert text.count("expired</title>") == 1
    found = result(run.act)
    assert (found["answered_by_old"], found["answered_by_new"], found["lost"]) == (12, 7, 1)
    assert found["round"] == {"bytes_up": 1234, "bytes_down": 567, "seconds": 3.5}
    json.dumps(found, allow_nan=False)


def test_a_gate_that_refused_is_told(run: Run) -> None:
    assert run.act is not None
    run.act.refused = "the bundle is worse than the one in use: shape loses 12.50 points"
    assert any("loses 12.50 points" in text and "released all the same" in text for text in facts(run.act))
    assert "loses 12.50 points" in last_act(run)


def test_why_there_is_none_is_told(run: Run, monkeypatch: pytest.MonkeyPatch, tiny_bundle: Bundle) -> None:
    assert "no weights.safetensors" in why_not(tiny_bundle)
    assert why_not(learnable.bundle()) == ""
    monkeypatch.setattr(acts, "find_spec", lambda name: None if name == "flwr" else name)
    assert why_not(learnable.bundle()) == "it needs flwr; pip install 'headwater[federated]' brings them"
    run.act, run.no_act = None, "it needs flwr"
    assert watch.ending(run) == ["last act: a federated round, and a live swap: left out; it needs flwr"]
    assert "left out: it needs flwr" in last_act(run)


def photos(folder: Path, count: int) -> Path:
    """Folders 0 and 1 of pictures of one grey each."""
    for at in range(count):
        path = folder / str(at % 2) / f"{at:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), at).save(path)
    return folder


def grey(path: Path) -> int:
    value = Image.open(path).getpixel((0, 0))
    assert isinstance(value, int)
    return value


def laid_out(tmp_path: Path, count: int) -> tuple[Act | None, list[Sample], Path]:
    source = str(photos(tmp_path / "photos", count))
    bundle = learnable.bundle()
    samples = take_samples(source, bundle.manifest.tasks[0], 12, tmp_path / "pictures")
    return lay_out(bundle, source, samples, tmp_path / "learning"), samples, tmp_path / "learning"


def test_nobody_learns_from_what_is_measured_and_no_picture_is_with_two(tmp_path: Path) -> None:
    act, samples, folder = laid_out(tmp_path, 80)
    assert act is not None
    _, test = split(open_dataset(tmp_path / "photos"))
    held_out = {int(Path(item.name).stem) for item in test.items}
    learnt = [
        {grey(path) for path in (folder / name).rglob("*.png") if "test" not in path.parts}
        for name in ("learner-lte", "learner-wifi", "server")
    ]
    assert [len(part) for part in learnt] == [15, 15, 30]
    assert sum(map(len, learnt)) == len(set().union(*learnt))
    assert not set().union(*learnt) & held_out
    shown = {path.name for path in (folder / "frames").iterdir()}
    assert (
        shown == {sample.path.name for sample in samples} == {p.name for p in (folder / "server/test").rglob("*.png")}
    )
    assert (act.learnt, act.shown) == (15, 12)


def test_too_few_pictures_make_no_act(tmp_path: Path) -> None:
    assert laid_out(tmp_path, 20)[0] is None
