"""The user's policy as data."""

import pytest

from headwater.compression.errors import SettingsError
from headwater.device.control.policy import PRICES, Policy


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"level": 1.0}, "level is 1; it must be a probability"),
        ({"level": 0.3}, "level is 0.3"),
        ({"slack": -1.0}, "slack is -1"),
        ({"max_bytes_per_s": 0.0}, "max_bytes_per_s is 0"),
        ({"burst_s": 0.0}, "burst_s is 0"),
        ({"prefer": {"defect": -1.0}}, r"prefer\.defect is -1"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Policy(**given)  # type: ignore[arg-type]


def test_accuracy_is_the_weighted_mean_of_the_tasks() -> None:
    of_tasks = {"a": 0.9, "b": 0.6}
    assert Policy().accuracy(of_tasks) == pytest.approx(0.75)
    assert Policy(prefer={"a": 2.0}).accuracy(of_tasks) == pytest.approx(0.8)
    assert Policy(prefer={"b": 0.0}).accuracy(of_tasks) == pytest.approx(0.9)
    assert Policy(prefer={"a": 0.0, "b": 0.0}).accuracy(of_tasks) == 0.0
    assert Policy().accuracy({}) == 0.0


def test_energy_of_a_frame() -> None:
    lte = PRICES["lte"]
    cost = lte.cost(byte_ms=0.2)
    assert cost.of(1000) == pytest.approx(lte.compute_watts)
    # 100 bytes at 438 nJ a bit, while the radio is on for 20 ms at 1.288 W
    assert cost.of(0, 100) == pytest.approx(800 * 438e-9 + 0.02 * 1.288)
    assert PRICES["wifi"].cost(0.2).of(0, 100) < cost.of(0, 100)
    assert Policy("energy", prices=lte).cost(0.2) == cost
    assert Policy("bytes").cost(0.2).of(1000, 100) == 100
