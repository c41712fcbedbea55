"""Fixtures of the simulations' tests."""

from pathlib import Path

import pytest

from headwater.compression.bundle import Bundle


@pytest.fixture(scope="session")
def tiny_path(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small bundle as a zip on disk."""
    return tiny_bundle.save(tmp_path_factory.mktemp("bundle") / "tiny.zip")
