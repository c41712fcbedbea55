"""What is free is kept, or given back: seen from a process of its own, whose heap nobody else uses."""

from __future__ import annotations

import subprocess
import sys

import pytest

SAYS = """
from pathlib import Path
from headwater.compression import allocator

def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

allocator.keep(64 << 20)
start = resident_bytes()
blocks = [bytearray(b"x" * (1 << 20)) for _ in range(24)]
full = resident_bytes()
del blocks
kept = resident_bytes()
allocator.give_back()
print(full - start, kept - start, resident_bytes() - start)
"""


KEEPS_ALL = """
import mmap
from headwater.compression import allocator
from resource import RUSAGE_SELF, getrusage

allocator.keep_all()
SIZE = 48 << 20
block = b"x" * SIZE
del block
before = getrusage(RUSAGE_SELF).ru_minflt
block = b"x" * SIZE
print((getrusage(RUSAGE_SELF).ru_minflt - before) * mmap.PAGESIZE / SIZE)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_what_is_free_is_kept_until_it_is_given_back() -> None:
    told = subprocess.run([sys.executable, "-c", SAYS], check=True, capture_output=True, text=True).stdout
    full, kept, left = (int(word) for word in told.split())
    assert full >= 24 << 20
    assert kept >= 20 << 20, "blocks of a megabyte are on the heap, and stay there"
    assert left <= 8 << 20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_a_block_of_any_size_is_kept_whole() -> None:
    told = subprocess.run([sys.executable, "-c", KEEPS_ALL], check=True, capture_output=True, text=True).stdout
    assert float(told) < 0.1, "share of a block's pages that had to be mapped again"
