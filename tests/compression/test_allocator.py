"""What is free is kept, or given back: seen from a process of its own, whose heap nobody else uses."""

from __future__ import annotations

import platform
import re
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


SHARES = """
import ctypes, re, tempfile, threading
from headwater.compression import allocator

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.fopen.restype = ctypes.c_void_p, ctypes.c_void_p
libc.fopen.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
libc.malloc_info.argtypes, libc.fclose.argtypes = [ctypes.c_int, ctypes.c_void_p], [ctypes.c_void_p]

def heaps():
    with tempfile.NamedTemporaryFile() as told:
        file = libc.fopen(told.name.encode(), b"w")
        libc.malloc_info(0, file)
        libc.fclose(file)
        return len(re.findall(rb"<heap ", told.read()))

MOST and allocator.share_heaps(MOST)
together = threading.Barrier(6)
threads = [threading.Thread(target=lambda: (libc.malloc(1000), together.wait())) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(heaps())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_threads_share_heaps() -> None:
    freely, shared = (
        int(subprocess.run([sys.executable, "-c", SHARES.replace("MOST", most)], check=True, stdout=-1).stdout)
        for most in ("0", "2")
    )
    assert freely > 2
    assert shared == 2


IN_LARGE_PAGES = """
from pathlib import Path
from headwater.compression.allocator import in_large_pages

def large_kb():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages"))

small = [bytes([number % 256]) * 200 for number in range(200_000)]
before = large_kb()
in_large_pages()
print(before, large_kb(), all(one == bytes([number % 256]) * 200 for number, one in enumerate(small)))
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or tuple(map(int, re.findall(r"\d+", platform.release())[:2])) < (6, 1),
    reason="Linux moves memory into large pages on demand from 6.1 on",
)
def test_memory_is_moved_into_large_pages() -> None:
    told = subprocess.run([sys.executable, "-c", IN_LARGE_PAGES], check=True, capture_output=True, text=True).stdout
    before, after, same = told.split()
    if int(after) == int(before):
        pytest.skip("the kernel was built without large pages, or has none left")
    assert int(after) - int(before) >= 16_000
    assert same == "True"
