"""A thread that gives way to others, and only it."""

import os
import sys
import threading

import pytest

from headwater.compression.background import NICE, background

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nice is a whole process's own elsewhere")


def nice() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_its_thread_is_nicer_than_the_one_that_asked() -> None:
    before = nice()
    with background("some-work") as pool:
        name = pool.submit(lambda: threading.current_thread().name).result()
        assert pool.submit(nice).result() == min(before + NICE, 19)
    assert name.startswith("some-work")
    assert nice() == before


def test_what_several_threads_will_run_is_not_made_by_a_nice_one() -> None:
    with background("some-work", threads=2) as pool:
        assert pool.submit(nice).result() == nice()
