"""The page on limits says what the code does."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from headwater.server.access.denials import REASONS
from headwater.server.settings import ServerSettings

PAGE = (Path(__file__).parents[3] / "docs" / "limits.md").read_text(encoding="utf-8")


def test_defaults_are_those_of_the_settings() -> None:
    told = dict(re.findall(r"^\| `--([a-z-]+)` \| (\d+) \|", PAGE, re.MULTILINE))
    settings = {field.name.replace("_", "-"): field.default for field in fields(ServerSettings)}
    assert told == {name: str(settings[name]) for name in told}
    limits = {name for name in settings if name.startswith("max-")} - {"max-batch", "max-wait-ms"}
    assert limits <= told.keys()


def test_every_reason_is_told() -> None:
    assert set(REASONS) <= set(re.findall(r"`([a-z]+)`", PAGE))
