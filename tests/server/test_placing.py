"""A core for each worker, the others for everything else."""

import os
import subprocess
import sys

import pytest

from headwater.compression.errors import SettingsError
from headwater.server.placing import Placing


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Four cores, whatever this machine has; their numbers need not begin at 0."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 3, 5, 7})
    return [2, 3, 5, 7]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_each_worker_has_a_core_and_something_is_left(cores: list[int], workers: int) -> None:
    placing = Placing.of(workers)
    assert len(placing.workers) == workers
    assert placing.others
    assert sorted((*placing.workers, *placing.others)) == cores


def test_no_core_beside_the_workers(cores: list[int]) -> None:
    with pytest.raises(SettingsError, match=r"4 workers a core each .* may use 4\. Set fewer workers"):
        Placing.of(len(cores))


def test_every_thread_and_what_it_starts_stay_off() -> None:
    code = """
import os, threading
from headwater.server.placing import Placing
go, found = threading.Event(), []
def note():
    found.append(os.sched_getaffinity(0))
def look_and_start_another():
    go.wait()
    note()
    another = threading.Thread(target=note)
    another.start()
    another.join()
early = threading.Thread(target=look_and_start_another)
early.start()
core = min(os.sched_getaffinity(0))
Placing((), frozenset({core})).keep_off()
go.set()
early.join()
note()
assert found == [{core}] * 3, found
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
