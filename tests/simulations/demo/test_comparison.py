"""The same pictures, the same accuracy, what each costs."""

from pathlib import Path

import numpy as np
import pytest

from headwater.simulations.codecs import Scored, Setting
from headwater.simulations.demo.comparison import compare
from headwater.simulations.demo.report_codecs import times
from headwater.simulations.lane import Passage
from tests.simulations.demo import runs


def scored(codec: str | None, size: int, wrong: set[int], count: int = 12) -> Scored:
    setting = None if codec is None else Setting(codec, 16, 16, 50)  # type: ignore[arg-type]
    sizes = np.full(count, size)
    return Scored(setting, sizes, sizes, np.array([at not in wrong for at in range(count)]))


def test_a_link_is_compared_on_the_pictures_that_it_sent(tmp_path: Path) -> None:
    tally = runs.tally(runs.samples(tmp_path, 12))
    for index in range(6):
        tally.add(runs.record(index, taken_s=index, label="right" if index == 0 else None))
        tally.passages.append(Passage("up", 50, index + 0.01, index + 0.1))
    table = [
        scored(None, 1024, set()),
        scored("WebP", 120, {0}),  # as accurate as ours on the first six
        scored("WebP", 60, {0, 1}),  # cheaper and worse
        scored("JPEG", 900, {0, 1, 2, 9}),
    ]
    compared = compare(tally, table)
    assert compared is not None
    assert (compared.count, compared.mean_bytes, compared.untouched) == (6, 30, 1.0)
    assert compared.accuracy == pytest.approx(5 / 6)
    webp, jpeg = compared.peers
    assert webp.times_ours == pytest.approx(4)
    assert (webp.difference, webp.error) == pytest.approx((0, 0))
    assert jpeg.scored is None
    # 8 kbit/s: a byte a millisecond; gRPC adds 20 bytes; 100 ms of delay
    assert compared.transfer_s == pytest.approx(0.030 + 0.020 + 0.1)
    assert webp.transfer_s == pytest.approx(0.120 + 0.020 + 0.1)


def test_a_codec_that_is_cheaper_is_shown_as_such(tmp_path: Path) -> None:
    tally = runs.tally(runs.samples(tmp_path, 12))
    for index in range(4):
        tally.add(runs.record(index, taken_s=index))
    compared = compare(tally, [scored(None, 1024, set()), scored("WebP", 15, set())])
    assert compared is not None
    assert compared.peers[0].times_ours == pytest.approx(0.5)


def test_a_device_that_answered_all_by_itself_sent_nothing_to_compare(tmp_path: Path) -> None:
    tally = runs.tally(runs.samples(tmp_path, 12))
    for index in range(4):
        tally.add(runs.record(index, taken_s=index, source="local", bytes=0))
    compared = compare(tally, [scored(None, 1024, set()), scored("WebP", 15, set())])
    assert compared is not None
    (webp, jpeg) = compared.peers
    assert (compared.mean_bytes, webp.times_ours, webp.difference) == (0, None, 0)
    assert (times(webp), times(jpeg)) == ("we sent none", "not reached")


def test_nothing_in_common_is_no_comparison(tmp_path: Path) -> None:
    tally = runs.tally(runs.samples(tmp_path, 12))
    assert compare(tally, [scored(None, 1024, set())]) is None
    tally.add(runs.record(11, taken_s=0))
    assert compare(tally, [scored(None, 1024, set(), count=5)]) is None
