"""The accuracy of cut frames, against onnxruntime alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from headwater.compression.manifest import Cut
from headwater.server.training.cuts import with_cuts
from headwater.server.training.measure import Bench
from tests import tiny

SEEDS = range(24)
IMAGES = np.stack([tiny.image(seed) for seed in SEEDS])
LABELS = {name: np.array([tiny.labels(seed)[at] for seed in SEEDS]) for at, name in enumerate(("shape", "bright"))}


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(tiny.bundle(), IMAGES)


@pytest.mark.parametrize("index", [0, 7, 15])
def test_every_cut_is_measured_as_it_would_be_sent_and_answered(bench: Bench, index: int) -> None:
    bundle = tiny.bundle()
    measured = with_cuts(bundle.manifest.modes[index], bench, LABELS)
    assert [cut.groups for cut in measured.cuts] == [1, 2]
    for cut in measured.cuts:
        frames = [bundle.frames().pack(tiny.frame(bundle, seed, index, cut.groups)) for seed in SEEDS]
        assert cut.mean_bytes == pytest.approx(np.mean([len(frame) for frame in frames]), abs=0.01)
        for task, truth in LABELS.items():
            answers = [tiny.answer(bundle, seed, index, cut.groups)[task].argmax() for seed in SEEDS]
            assert cut.accuracy[task] == pytest.approx(np.mean(np.array(answers) == truth), abs=1e-5)
    assert dataclasses.replace(measured, cuts=()) == dataclasses.replace(bundle.manifest.modes[index], cuts=())


def test_what_is_known_of_other_tasks_stays(bench: Bench) -> None:
    mode = tiny.bundle().manifest.modes[15]
    earlier = dataclasses.replace(mode, cuts=(Cut(1, 9.0, {"shape": 0.1, "old": 0.2}), Cut(2, 9.0, {"old": 0.3})))
    first, second = with_cuts(earlier, bench.only(tiny.TASKS[:1]), LABELS).cuts
    assert set(first.accuracy) == set(second.accuracy) == {"shape", "old"}
    assert (first.accuracy["old"], second.accuracy["old"]) == (0.2, 0.3)
    assert first.accuracy["shape"] != 0.1


def test_a_bench_of_fewer_tasks_shares_what_is_computed(bench: Bench) -> None:
    fewer = bench.only(tiny.TASKS[:1])
    assert list(fewer.run(tiny.bundle().manifest.modes[3]).logits) == ["shape"]
    assert fewer.latents(0.25) is bench.latents(0.25)
    assert list(bench.run(tiny.bundle().manifest.modes[3]).logits) == ["shape", "bright"]
