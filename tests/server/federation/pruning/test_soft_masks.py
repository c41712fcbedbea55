"""Channels fade, come back, and go; times are made up, so that nothing depends on the machine."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ConfigRecord

from headwater.compression.errors import LearningError, SettingsError
from headwater.compression.learning.arrays import arrays_of, load
from headwater.compression.learning.importance import METHODS
from headwater.compression.learning.network import SplitNetwork
from headwater.compression.learning.surgery import removed, units_of
from headwater.server.federation.averaging import Contribution
from headwater.server.federation.pruning.latency import Curve, Times
from headwater.server.federation.pruning.soft_masks import FLOOR, Allotment, SoftMasks, StructuredSettings
from tests.compression.learning import small

UNIT = "head.blocks.1"


def made(network: SplitNetwork, method: str = "gradients", rounds: int = 3, target: float = 0.5) -> SoftMasks:
    """Every channel takes a microsecond, and nothing else takes any time."""
    units = units_of(network)
    curves = {name: Curve((0, unit.channels), (0.0, unit.channels / 1000)) for name, unit in units.items()}
    heads = sum(unit.channels for name, unit in units.items() if name.startswith("head")) / 1000
    tails = sum(unit.channels for name, unit in units.items() if name.startswith("tails")) / 1000
    times = Times(dict.fromkeys(small.WIDTHS, heads), (tails,))
    settings = StructuredSettings(target, 0.7, method, rounds)
    return SoftMasks(network, Allotment(network, times, curves, settings), settings)


def report(masks: SoftMasks, best: slice, examples: float = 10) -> Contribution:
    """A device that finds some channels of one unit ten times as important as all others, seen through the factors."""
    gathered = {}
    for name, factors in masks.factors.items():
        score = np.ones(len(factors), np.float32)
        if name == UNIT:
            score[best] = 10
        score *= factors ** METHODS[masks.settings.method].power
        gathered |= {f"{name}:score": score, f"{name}:seen": np.full(len(factors), examples, np.float32)}
    return Contribution(1, "cam", examples, {}, {}, gathered={"gathered": gathered})


def test_devices_are_asked_for_the_method() -> None:
    record = ConfigRecord()
    made(small.network(), "sensitivity").ask(1, record)
    assert record["gather"] == "sensitivity"


def test_what_is_not_chosen_fades_to_the_floor_and_what_is_stays() -> None:
    network = small.network()
    masks, arrays = made(network), arrays_of(network)
    for number in (1, 2, 3):
        arrays = masks.end(number, [report(masks, slice(0, 48, 2))], arrays).arrays
    kept = masks.kept()[UNIT]
    assert set(kept.tolist()) <= set(range(0, 48, 2)) or len(kept) > 24
    gone = np.setdiff1d(np.arange(48), kept)
    assert masks.factors[UNIT][gone] == pytest.approx(FLOOR)
    assert (masks.factors[UNIT][kept] == 1).all()
    name = f"{UNIT}.project.conv.weight"
    np.testing.assert_allclose(
        arrays[name], arrays_of(network)[name] * masks.factors[UNIT][None, :, None, None], rtol=1e-5
    )


def test_the_time_asked_for_is_met() -> None:
    network = small.network()
    masks = made(network)
    masks.end(1, [report(masks, slice(0, 24))], arrays_of(network))
    kept = masks.kept()
    assert sum(len(each) for name, each in kept.items() if name.startswith("head")) <= 0.5 * (32 + 48 + 64)
    assert sum(len(each) for name, each in kept.items() if name.startswith("tails")) <= 0.7 * (96 + 64)
    removed(network, kept)  # every width stays whole


def test_a_channel_that_turns_out_to_matter_comes_back() -> None:
    network = small.network()
    masks, arrays = made(network, rounds=6), arrays_of(network)
    for number in (1, 2):
        arrays = masks.end(number, [report(masks, slice(0, 8))], arrays).arrays
    lost = int(np.argmin(masks.factors[UNIT]))
    assert masks.factors[UNIT][lost] < 0.8
    for number in (3, 4, 5, 6):
        arrays = masks.end(number, [report(masks, slice(lost, lost + 1))], arrays).arrays
    assert masks.factors[UNIT][lost] == 1
    name = f"{UNIT}.project.conv.weight"
    np.testing.assert_allclose(arrays[name][:, lost], arrays_of(network)[name][:, lost], rtol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_scores_are_taken_as_if_nothing_had_faded(method: str) -> None:
    network = small.network()
    masks = made(network, method)
    masks.factors[UNIT][:] = 0.5
    masks.end(1, [report(masks, slice(0, 0))], arrays_of(network))
    assert masks.scores[UNIT] == pytest.approx(np.ones(48))


def test_cleared_arrays_are_those_of_before() -> None:
    network = small.network()
    masks, arrays = made(network), arrays_of(network)
    faded = masks.end(1, [report(masks, slice(0, 8))], arrays).arrays
    cleared = masks.cleared(faded)
    for name, array in arrays.items():
        np.testing.assert_allclose(cleared[name], array, rtol=1e-5)
    load(network, cleared)


def test_what_a_hostile_device_gathers_is_left_out() -> None:
    network = small.network()
    masks, arrays = made(network), arrays_of(network)
    for broken in (np.full(48, np.nan, np.float32), np.ones(47, np.float32), -np.ones(48, np.float32), "no array"):
        device = report(masks, slice(0, 8))
        device.gathered["gathered"][f"{UNIT}:score"] = broken
        assert masks.end(1, [device], arrays).arrays is arrays
    with pytest.raises(LearningError, match="no device has said yet"):
        masks.kept()


def test_a_state_goes_on_where_it_was() -> None:
    network = small.network()
    masks, other = made(network), made(network, target=0.9)
    arrays = masks.end(1, [report(masks, slice(0, 8))], arrays_of(network)).arrays
    other = made(network)
    other.load(masks.dump())
    one, two = (each.end(2, [report(each, slice(8, 16))], arrays).arrays for each in (masks, other))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert masks.dump() == other.dump()


@pytest.mark.parametrize("wrong", [{"target_latency": 0.0}, {"target_tail": 1.5}, {"method": "magic"}, {"rounds": 0}])
def test_settings_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError):
        StructuredSettings(**wrong)  # type: ignore[arg-type]
