"""Energy by state, by byte and by tail, with its range."""

import pytest

from headwater.compression.errors import SettingsError
from headwater.device.control.policy import PRICES
from headwater.device.figure import ZERO, Figure
from headwater.device.radio import RADIOS
from headwater.simulations.fleet import energy, profiles
from headwater.simulations.fleet.energy import Activity, joules, radio_of, ranged, total
from headwater.simulations.fleet.outcome import ClassOutcome
from headwater.simulations.fleet.radios import READY

PI = profiles.load("pi-4")


def test_states_times_power_and_bytes_times_price() -> None:
    lte = RADIOS["lte"]
    did = Activity(awake_s=100, asleep_s=10, computing_s=2, sending_s=3, sent_bytes=1e6, tail_s=20, wakes=4)
    parts = joules(PI, lte, did)
    assert tuple(parts) == energy.PARTS
    assert parts["idle"].mid == pytest.approx(230)
    assert parts["sleep"].mid == pytest.approx(14)
    assert parts["compute"].mid == pytest.approx(2)
    assert parts["radio"].mid == pytest.approx(3 * 1.288 + 8e6 * 438e-9)
    assert parts["tail"].mid == pytest.approx(20 * 1.06 + 4 * 0.3149, rel=1e-3)
    whole = total(parts)
    assert whole.mid == pytest.approx(sum(part.mid for part in parts.values()))
    assert whole.low < whole.mid < whole.high


def test_computing_is_as_uncertain_as_the_head_and_the_core() -> None:
    compute = joules(PI, RADIOS["none"], Activity(computing_s=1))["compute"]
    assert PI.head_ms_per_mmac is not None
    head = PI.head_ms_per_mmac
    assert compute.low == pytest.approx(PI.core_w.low * head.low / head.mid)
    assert compute.high == pytest.approx(PI.core_w.high * head.high / head.mid)


def test_a_range_around_joules_that_were_counted() -> None:
    did = Activity(awake_s=100, computing_s=2, sending_s=3, tail_s=20)
    counted = {part: figure.mid for part, figure in joules(PI, RADIOS["lte"], did).items()}
    spans = ranged(PI, RADIOS["lte"], counted)
    expected = joules(PI, RADIOS["lte"], did)
    for part in energy.PARTS:
        assert (spans[part].low, spans[part].mid, spans[part].high) == pytest.approx(
            (expected[part].low, expected[part].mid, expected[part].high)
        )


def test_what_a_simulated_class_did() -> None:
    spent = dict.fromkeys(("prepare", "head", "exit", "code", "whole", "train"), 1.0)
    busy = {**spent, "send": 2.0, "receive": 3.0, "tail": 4.0}
    did = energy.activity(ClassOutcome("a", device_s=100, up_bytes=10, down_bytes=20, wakes=4, busy_s=busy))
    assert did == Activity(100, 0, 6, 2, 3, 10, 20, 4, 4)


def test_a_cable_costs_nothing() -> None:
    parts = joules(PI, radio_of("cable"), Activity(sending_s=10, sent_bytes=1e9, tail_s=10, wakes=3))
    assert total(parts).high == 0


def test_every_link_has_a_radio_and_the_agent_prices_it_the_same() -> None:
    for table in READY.values():
        radio = radio_of(table["kind"])
        prices = PRICES[radio.kind]
        assert (prices.radio_watts, prices.joule_per_byte) == (radio.send_w.mid, radio.send_j_per_byte.mid)
        assert bool(prices.joule_per_frame) == (radio.tail_s == ZERO and radio.wake_j != ZERO)


def test_a_figure_out_of_order() -> None:
    with pytest.raises(SettingsError, match="must rise from 0"):
        Figure(2, 1, 3)
    with pytest.raises(SettingsError, match="must rise from 0"):
        Figure(0, 1, float("nan"))
    assert ZERO.relative == Figure(1, 1, 1)
