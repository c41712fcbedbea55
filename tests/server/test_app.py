import ctypes
import json
import subprocess
import sys

import pytest

from headwater.simulations.shipped import shipped_bundle


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc's allocator tells")
def test_a_warmed_server_takes_no_more_memory_for_batches_that_meet() -> None:
    code = """
import ctypes, json, random, sys, threading
import numpy as np
from headwater.server.app import load
from headwater.server.settings import ServerSettings

class Mallinfo(ctypes.Structure):
    _fields_ = [(f"_{n}", ctypes.c_size_t) for n in range(10)]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Mallinfo
large = lambda: libc.mallinfo2()._4  # bytes in blocks so large that each is mapped by itself

settings = ServerSettings(bundle=[sys.argv[1]], workers=2)
(served,) = load(settings).served
latent = served.bundle.manifest.latent

def frames(seed):
    rng = random.Random(seed)
    for _ in range(40):
        batch = rng.choice([1, 7, 31, settings.max_batch])
        shape = batch, latent.channels, latent.height, latent.width
        served.tails.run(np.zeros(shape, np.float32), np.zeros(batch, np.int64), [0] * batch)

before = large()
workers = [threading.Thread(target=frames, args=(seed,)) for seed in range(settings.workers)]
for worker in workers: worker.start()
for worker in workers: worker.join()
print(json.dumps([before, large()]))
"""
    command = [sys.executable, "-c", code, str(shipped_bundle())]
    before, after = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert before > 20e6, "what is looked at is what batches take"
    assert after <= before
