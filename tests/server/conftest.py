"""A server's state, and its mailbox."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater.server.mail.mailbox import Mailbox


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def box(state: Path) -> Iterator[Mailbox]:
    """The mailbox as another process has it open."""
    with Mailbox(state) as opened:
        yield opened
