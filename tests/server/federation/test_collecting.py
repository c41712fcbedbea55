"""Who waits for devices says so, once for each number that is there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from headwater.server.federation.collecting import names_of


class Filling:
    """A grid to which a device comes with every third look."""

    def __init__(self) -> None:
        self.looks = 0

    def get_nodes(self) -> list[Any]:
        self.looks += 1
        return [SimpleNamespace(node_id=number, name=f"cam-{number}") for number in range(self.looks // 3)]

    def wait(self, _: float) -> None:
        """Nothing to wait for."""


def test_who_waits_for_devices_says_so(caplog: pytest.LogCaptureFixture) -> None:
    assert names_of(Filling(), 2) == {0: "cam-0", 1: "cam-1"}  # type: ignore[arg-type]
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"waiting for devices: {n} of at least 2 are connected with --train-data" for n in (0, 1)]
