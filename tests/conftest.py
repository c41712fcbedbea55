"""Fixtures that every area's tests may use."""

from __future__ import annotations

import logging
import os
import signal
import sys
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
        patch.setenv("XDG_STATE_HOME", str(empty.with_name("state")))  # an enrolled user's agents speak TLS
        yield


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heeded() -> Iterator[None]:
    """A shell that runs the tests in the background lets them ignore SIGINT, and their processes inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _torch_draws_the_same() -> None:
    """Whatever came before; for Python's generator and numpy's pytest-randomly sees to it."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Take away the handlers that a command run inside this process put up: their stream closes with the test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        root.removeHandler(handler)
    root.setLevel(level)
