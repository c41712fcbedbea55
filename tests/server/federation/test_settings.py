from typing import get_args, get_type_hints

import pytest

from headwater.compression.errors import SettingsError
from headwater.compression.learning.layout import PARTS
from headwater.compression.learning.optimizers import NAMES
from headwater.server.federation.asking import round_record
from headwater.server.federation.companion import Dense
from headwater.server.federation.settings import RoundSettings


def test_what_may_be_asked_of_devices_is_what_they_know() -> None:
    said = get_type_hints(RoundSettings)  # written out there, since a server without torch reads them too
    assert set(get_args(said["part"])) == set(PARTS)
    assert set(get_args(said["optimizer"])) == set(NAMES)


def test_steps_get_smaller_by_decay() -> None:
    rates = [round_record(RoundSettings(rate=0.4, decay=0.5), number, "", "", Dense())["rate"] for number in (1, 2, 4)]
    assert rates == [0.4, 0.2, 0.05]
    with pytest.raises(SettingsError, match="decay"):
        RoundSettings(decay=1.5)


def test_devices_are_told_how_much_of_their_labels_skew_to_leave_out() -> None:
    assert round_record(RoundSettings(logit_adjustment=0.25), 1, "", "", Dense())["logit-adjustment"] == 0.25
    with pytest.raises(SettingsError, match="logit_adjustment"):
        RoundSettings(logit_adjustment=1.5)
