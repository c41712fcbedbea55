"""Fixtures that every area's tests may use."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from headwater.compression.bundle import Bundle
from tests import tiny


@pytest.fixture(scope="session")
def tiny_bundle() -> Bundle:
    """The small real bundle of ``tests/tiny.py``."""
    return tiny.bundle()


@pytest.fixture(scope="session", autouse=True)
def _without_the_user_s_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let no variable or file of whoever runs the tests change what they test; processes inherit it."""
    empty = tmp_path_factory.mktemp("settings") / "empty.toml"
    empty.touch()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("HEADWATER_")]:
            patch.delenv(name)
        patch.setenv("HEADWATER_CONFIG", str(empty))
        yield
