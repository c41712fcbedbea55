from typing import get_args, get_type_hints

from headwater.compression.learning.layout import PARTS
from headwater.compression.learning.optimizers import NAMES
from headwater.server.federation.settings import RoundSettings


def test_what_may_be_asked_of_devices_is_what_they_know() -> None:
    said = get_type_hints(RoundSettings)  # written out there, since a server without torch reads them too
    assert set(get_args(said["part"])) == set(PARTS)
    assert set(get_args(said["optimizer"])) == set(NAMES)
