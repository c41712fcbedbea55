"""What swapping a bundle costs the frames that flow meanwhile, and what it costs the link.

    python -m benchmarks.rollout                       # 20 swaps of the shipped bundle under load
    python -m benchmarks.rollout --quick

A server and a device as processes. The device answers 20 pictures a second, by turns for a while with nothing else
going on, and while one version after the other is released: the shipped bundle with the weights of heads, decoder, exit
and tails moved by 0.2 %. Every frame must be answered, once, and every version must have been used. The peer of the
time is the same device between these turns, since a machine is not the same from one minute to the next; that of the
bytes is the whole bundle.
"""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import numpy_helper
from PIL import Image

from benchmarks import claims
from headwater.compression import patch, signature
from headwater.compression.bundle import Bundle, to_safetensors
from headwater.compression.inference import session
from headwater.compression.manifest import head_file
from headwater.compression.release import Signer
from headwater.device import FrameRecord, read_records
from headwater.server.rollout.canary import Rules
from headwater.server.rollout.gate import Bounds
from headwater.server.rollout.publish import publish
from headwater.server.rollout.versions import Versions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BUNDLE = Path(__file__).parent.parent / "simulations" / "bundles" / "solar"
SWAPS, QUICK_SWAPS = 20, 2
TURNS, QUICK_TURNS = 5, 1
CALM_S, QUICK_CALM_S = 3.0, 3.0
"""Of a turn."""
GAP_S, QUICK_GAP_S = 1.75, 0.5
"""After a swap, until the next: a roll-out is no state to live in, but it is not to be seen either."""
FPS = 20
PICTURES = 40
LIMIT_S = 60.0
MOVED = 2e-3
HEADWATER = (sys.executable, "-m", "headwater.compression.cli")


def version(shipped: Bundle, number: int, key: Ed25519PrivateKey) -> Bundle:
    """The shipped bundle with weights that moved a little, its golden input computed again."""
    rng = np.random.default_rng(number)
    files = {name: shipped.read(name) for name in shipped.manifest.files}
    graphs = {name: graph for name, graph in files.items() if name.endswith(".onnx") and name != "local.onnx"}
    files |= {name: moved(graph, rng) for name, graph in graphs.items()}
    arrays = shipped.arrays("golden.safetensors")
    for width in shipped.manifest.widths:
        head = session(files[head_file(width)])
        latents = [head.run(["latent"], {"image": image[np.newaxis]})[0] for image in arrays["image"]]
        arrays[f"latent_{width:g}"] = np.concatenate(latents)
    files["golden.safetensors"] = to_safetensors(arrays)
    created = datetime.fromisoformat(shipped.manifest.created) + timedelta(seconds=number)
    made = Bundle.build(dataclasses.replace(shipped.manifest, created=created.isoformat()), files)
    return made.signed(signature.sign(made.manifest_bytes, key))


def moved(graph: bytes, rng: np.random.Generator) -> bytes:
    """A graph whose float weights moved by 0.2 % and of whose 8-bit weights a tenth moved by one."""
    model = onnx.load_from_string(graph)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.size > 16 and array.dtype == np.float32:
            array = (array * (1 + rng.normal(0, MOVED, array.shape))).astype(np.float32)
        elif array.size > 16 and array.dtype == np.int8:
            array = np.clip(array.astype(np.int16) + (rng.random(array.shape) < 0.1), -127, 127).astype(np.int8)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    data: bytes = model.SerializeToString()
    return data


def photos(folder: Path) -> Path:
    """Pictures of the bundle's size, of noise on a slope."""
    folder.mkdir()
    for seed in range(PICTURES):
        rng = np.random.default_rng(seed)
        pixels = rng.normal(np.linspace(60, 180, 128), 25, (128, 128)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed:03}.png")
    return folder


def swap(state: Path, made: Bundle, signer: Signer) -> None:
    """Release a bundle to all, and wait until the device uses it."""
    release = publish(state, made, signer, Rules(share=1.0), Bounds(100.0, 10_000.0)).release
    end_s = time.monotonic() + LIMIT_S
    with Versions(state) as versions:
        while not any(standing == "in use" for standing, _ in versions.members(release.serial).values()):
            assert time.monotonic() < end_s, f"the device did not use {made.short_id} within {LIMIT_S:g} s"
            time.sleep(0.05)


class Plan(NamedTuple):
    """How long a run is."""

    swaps: int = SWAPS
    turns: int = TURNS
    calm_s: float = CALM_S
    gap_s: float = GAP_S


QUICK = Plan(QUICK_SWAPS, QUICK_TURNS, QUICK_CALM_S, QUICK_GAP_S)
Span = tuple[datetime, datetime]


def run(folder: Path, key: Path, plan: Plan) -> tuple[list[FrameRecord], list[Bundle], dict[bool, list[Span]]]:
    """All records of the device, the versions, and from when to when there were swaps and none."""
    state, records = folder / "state", folder / "records.jsonl"
    signer = Signer(signature.load_private(key))
    words = ("--bundle", BUNDLE, "--state", state, "--listen", "127.0.0.1:0", "--http", "", "--log-level", "error")
    server = subprocess.Popen([*HEADWATER, "server", *map(str, words)], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    found = re.search(r"grpc=(\S+)", server.stdout.readline())
    assert found, "the server did not start"
    words = (
        *("--bundle", BUNDLE, "--server", found[1], "--source", photos(folder / "photos"), "--repeat", "--fps", FPS),
        *("--width", 1, "--records", records, "--state", folder / "device", "--trusted-key", f"{key}.pub"),
        *("--log-level", "error", "--report-s", 1),
    )
    device = subprocess.Popen([*HEADWATER, "device", *map(str, words)], stdout=subprocess.DEVNULL)
    try:
        shipped = Bundle.load(BUNDLE)
        made = [version(shipped, number, signer.key) for number in range(1, plan.swaps + 1)]
        while not records.exists() or records.read_bytes().count(b"\n") < FPS:  # the first ones wait for the connection
            time.sleep(0.05)
        spans = take_turns(plan, made, lambda one: swap(state, one, signer))
        device.send_signal(signal.SIGTERM)
        assert device.wait(LIMIT_S) == 0, "the device lost a frame"
    finally:
        for process in (device, server):
            process.kill()
            process.communicate()
    return list(read_records(records)), made, spans


def take_turns(plan: Plan, made: Sequence[Bundle], release: Callable[[Bundle], None]) -> dict[bool, list[Span]]:
    """Leave the device alone, then swap some bundles, again and again; from when to when each was."""
    spans: dict[bool, list[Span]] = {False: [], True: []}
    share = -(-len(made) // plan.turns)
    with ThreadPoolExecutor(1, "publisher", initializer=_elsewhere) as publisher:
        for first in range(0, len(made), share):
            began = datetime.now(UTC)
            time.sleep(plan.calm_s)
            calm = datetime.now(UTC)
            for one in made[first : first + share]:
                publisher.submit(release, one).result()
                time.sleep(plan.gap_s)
            spans[False].append((began, calm))
            spans[True].append((calm, datetime.now(UTC)))
    return spans


def _elsewhere() -> None:
    """Have this thread take nothing from the others: who publishes is at another machine."""
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def within(records: Sequence[FrameRecord], spans: Sequence[Span]) -> list[FrameRecord]:
    """Those whose picture was taken then."""
    return [one for one in records if any(a <= datetime.fromisoformat(one.taken) < b for a, b in spans)]


def p95_ms(records: Sequence[FrameRecord]) -> float:
    """Of the answer times; each frame has an answer."""
    assert all(record.status == "ok" for record in records), "a frame has no answer"
    return float(np.percentile([record.latency_ms for record in records], 95))


def spread(before: Sequence[FrameRecord], during: Sequence[FrameRecord]) -> str:
    """The ratio of both p95 among frames drawn again and again, as text: how much of it is chance."""
    rng, times = np.random.default_rng(0), [[record.latency_ms for record in each] for each in (before, during)]
    ratios = [np.divide(*(np.percentile(rng.choice(each, len(each)), 95) for each in times[::-1])) for _ in range(200)]
    return f"{np.percentile(ratios, 5):.2f} to {np.percentile(ratios, 95):.2f} in nine of ten resamples"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it."""
    options = claims.options(__doc__, arguments)
    plan = QUICK if options.quick else Plan()
    shipped = Bundle.load(BUNDLE)
    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder) / "release.key"
        signature.generate(key)
        records, made, spans = run(Path(folder), key, plan)
    used = {record.bundle for record in records}
    assert used == {bundle.short_id for bundle in (shipped, *made)}, "a version was never used"
    sequences = sorted(record.sequence for record in records)
    lost = sequences[-1] - len(set(sequences))
    calm, swapping = (within(records, spans[whether]) for whether in (False, True))
    before, during = p95_ms(calm), p95_ms(swapping)
    whole, part = (len(patch.make(made[0], old, device=True)) for old in (None, shipped))
    name = "rollout"
    found = [
        claims.at_most(name, f"frames lost in {plan.swaps} swaps", lost, unit="frames", target=0, peer="-"),
        claims.at_most(
            name,
            "p95 of the answer time while bundles are swapped, over that between",
            during / before,
            unit="x",
            target=1.1,
            peer=f"the same device between: {before:.1f} ms; {spread(calm, swapping)}",
        ),
        claims.at_least(
            *(name, "bytes of the whole bundle over those of a swap"),
            whole / part,
            unit="x",
            target=4,
            peer=f"what a device reads, zstd: {whole} bytes",
        ),
    ]
    return claims.report("Roll-out", found, options)


if __name__ == "__main__":
    sys.exit(main())
