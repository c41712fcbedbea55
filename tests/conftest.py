"""Fixtures that every area's tests may use."""

from __future__ import annotations

import pytest

from headwater.compression.bundle import Bundle
from tests import tiny


@pytest.fixture(scope="session")
def tiny_bundle() -> Bundle:
    """The small real bundle of ``tests/tiny.py``."""
    return tiny.bundle()
