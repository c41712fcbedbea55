"""What rounds over a live fleet are told when channels fade in them, whatever the server's settings say."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headwater.compression.learning.network import SplitNetwork
from headwater.server.federation.pruning import fleet, structured
from headwater.server.federation.pruning.soft_masks import StructuredSettings
from headwater.server.federation.settings import RoundSettings
from tests.compression.learning import small
from tests.server.rollout import test_build


def test_the_last_version_is_what_is_carved_and_it_is_dense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[RoundSettings] = []

    def rounds_of(_bundle: object, _state: Path, settings: RoundSettings, **how: Any) -> None:  # noqa: ANN401
        asked.append(settings)
        how["companion"](small.network())

    def soft_masks(network: SplitNetwork, *_: object) -> str:
        assert network.widths
        return "soft masks"

    monkeypatch.setattr(fleet, "rounds_of", rounds_of)
    monkeypatch.setattr(fleet, "soft_masks", soft_masks)
    monkeypatch.setattr(fleet, "federate", lambda *_: SimpleNamespace(arrays={"head": 1}))
    monkeypatch.setattr(fleet, "carve", lambda _network, arrays, masks, _spec: (arrays, masks))
    config = tmp_path / "headwater.toml"
    config.write_text("[federation]\naverage = 5\nsparse = 0.3\nrate = 0.002\n")
    pruning = structured.Pruning(test_build.parent(), None, StructuredSettings(0.5, 0.7, "gradients", 4))  # type: ignore[arg-type]
    assert fleet.over(pruning, tmp_path, config, lambda _: None) == ({"head": 1}, "soft masks")
    (settings,) = asked
    assert (settings.rounds, settings.average, settings.sparse, settings.rate) == (4, 1, 0.0, 0.002)
