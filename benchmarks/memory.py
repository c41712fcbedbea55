"""What pruning saves: memory of a device's training process, and time of head and tail.

    python -m benchmarks.memory                     # simulations/bundles/solar
    python -m benchmarks.memory --bundle PATH       # any other that `headwater train` or a rollout wrote
    python -m benchmarks.memory --all               # beside it all ways, with the masks alone as well

Memory: the worker of a device, the very process that an agent starts, with its settings of the allocator, answers two
messages of rounds with the app that ships: one with two images, which brings in what is loaded on first use, then
the one that is measured, on the bundle's golden images. What the process takes between the two is its idle level; the
figure is the most above it from message to reply, the update's own bytes included. Dense is the same network, trained
as in any other round, with the same batch. Beside FedMef with both of its parts stand runs with one of them switched
off, and with --all one with the masks alone. Before any of it, that forward is the same, pruned or not, is asserted.

Time: channels are chosen by one pass over the golden images and removed, nothing is learnt: how accurate such a network
is after learning is in benchmarks.federated. Heads and tails before and after take turns.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks import claims
from benchmarks.training_worker import message, training_worker
from headwater.compression.bundle import Bundle
from headwater.compression.image import to_png
from headwater.compression.learning import masks as masking
from headwater.compression.learning.arrays import arrays_of, version_of
from headwater.compression.learning.importance import collecting, together
from headwater.compression.learning.local_data import HELD_OUT
from headwater.compression.learning.plan import Plan
from headwater.compression.learning.reading import network_of
from headwater.compression.learning.samples import Samples, normalise
from headwater.compression.learning.sparse import SparsePlan, keeping
from headwater.compression.learning.terms import Terms
from headwater.compression.learning.train import train
from headwater.compression.updates import Scheme, encode
from headwater.device.federated.holding import start_of
from headwater.server.federation.asking import round_record
from headwater.server.federation.companion import Dense
from headwater.server.federation.pruning.latency import beside
from headwater.server.federation.pruning.soft_masks import StructuredSettings
from headwater.server.federation.pruning.structured import carve, soft_masks
from headwater.server.federation.settings import RoundSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.claims import Claim

NAME = "memory"
TIMED = False  # its times are of two networks by turns
SECONDS = 95
BUNDLE = Path("simulations/bundles/solar")
DENSITY, KEEP, EXTRUDE = 0.3, 0.3, 0.2
WAYS: Mapping[str, Mapping[str, float]] = {
    "dense": {},
    "sparse": {"density": DENSITY, "keep": KEEP, "extrude": EXTRUDE, "due": 0.2},
    "without extrusion": {"density": DENSITY, "keep": KEEP},
    "without activation pruning": {"density": DENSITY, "extrude": EXTRUDE, "due": 0.2},
}
ALONE: Mapping[str, Mapping[str, float]] = {"masks alone": {"density": DENSITY}}
IMAGES, BATCH = 32, 16


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--all", action="store_true")
    own, rest = parser.parse_known_args(arguments)
    options = claims.options(__doc__, rest)
    images, batch = (4, 2) if options.quick else (IMAGES, BATCH)
    ways = {**WAYS, **ALONE} if own.all else WAYS
    found = [memory_claim(own.bundle, ways, images, batch), *time_claims(own.bundle, 3 if options.quick else 30)]
    return claims.report("Memory of training, and time after structured pruning", found, options)


# ---------------------------------------------------------------- memory


def memory_claim(path: Path, ways: Mapping[str, Mapping[str, float]], images: int, batch: int) -> Claim:
    """How much less sparse training takes than dense."""
    bundle = Bundle.load(path)
    check_forward(bundle, KEEP)
    with tempfile.TemporaryDirectory() as folder:
        data = pictures(bundle, Path(folder) / "data", images)
        peaks = {way: measured(path, data, how, batch) for way, how in ways.items()}
    dense = peaks["dense"]["peak_mb"]
    shares = {way: 100 * (1 - found["peak_mb"] / dense) for way, found in peaks.items()}
    others = ", ".join(f"{way} {shares[way]:.0f} %" for way in ways if way not in {"dense", "sparse"})
    slower = peaks["sparse"]["seconds"] / peaks["dense"]["seconds"]
    peer = f"dense {dense:.0f} MB at batch {batch}, {slower:.1f} x the time; {others}"
    claim = f"memory of the training process above idle, density {DENSITY}, kept {KEEP}: saved"
    return claims.at_least(NAME, claim, shares["sparse"], unit="%", target=40, peer=peer)


def measured(path: Path, data: Path, how: Mapping[str, float], batch: int) -> dict[str, float]:
    """The figures of a worker that trains so: its peak above its idle level, megabytes, and seconds of training."""
    asked, down = round_of(path, how, batch)
    config = {"device": "one", "bundle": str(path), "data": str(data)}
    with tempfile.TemporaryDirectory() as folder, training_worker(Path(folder)) as worker:
        worker.answer(message({**asked, "epochs": 0.05}, down), config)
        idle = worker.idle_bytes()
        worker.forget_peak()
        metrics = worker.answer(message(asked, down), config)
        return {"peak_mb": (worker.peak_bytes() - idle) / 1e6, "seconds": metrics["seconds"]}


def round_of(path: Path, how: Mapping[str, float], batch: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a device is asked, and the step to a version that is not the bundle's own, so that it has to hold one."""
    start = start_of(str(path))
    arrays, masks, note = start.arrays, None, b""
    if how:
        masks = masking.first(arrays, start.shapes, DENSITY)
        note = masking.to_bytes(masks, masks, DENSITY)
    change = {name: np.float32(1e-3) * array for name, array in arrays.items()}
    coded = encode(change, start.layout, Scheme("int8", 0.1), base=bytes.fromhex(start.version), mask=masks)
    new = {name: array + coded.decoded[name] for name, array in arrays.items()}
    version = version_of(new if masks is None else masking.apply(new, masks))
    told = RoundSettings(rate=1e-4, batch=batch, up=Scheme("ternary", 0.05).to_json())
    asked = round_record(told, 1, version, "", Dense())
    sparse = SparsePlan(**how, grow=True).to_json() if how else ""
    return {**asked, "sparse": sparse}, {"versions": [version], "updates": [coded.data], "notes": [note]}


def check_forward(bundle: Bundle, keep: float) -> None:
    """Forward is exact, whatever is kept for backward."""
    network, images = network_of(bundle), normalise(golden_images(bundle, 2).images)
    with torch.no_grad():
        wanted = network.head(images, network.widths[-1])
    with keeping(network, keep):
        found = network.head(images, network.widths[-1])
    torch.testing.assert_close(found.detach(), wanted, rtol=1e-3, atol=1e-3)


def golden_images(bundle: Bundle, count: int) -> Samples:
    """The bundle's own images, again and again, with labels of its first task in turn."""
    images = torch.from_numpy(bundle.arrays("golden.safetensors")["image"].copy())
    task = next(task for task in bundle.manifest.tasks if task.labels)
    labels = {task.name: torch.arange(count) % len(task.labels)}
    return Samples(images[torch.arange(count) % len(images)], labels)


def pictures(bundle: Bundle, folder: Path, count: int) -> Path:
    """The same as a device has them: a folder of files, a sub-folder a label; a fifth more, which it holds out."""
    task = next(task for task in bundle.manifest.tasks if task.labels)
    samples = golden_images(bundle, round(count / (1 - HELD_OUT)))
    for index, image in enumerate(samples.images):
        label = folder / task.labels[int(samples.labels[task.name][index])]
        label.mkdir(parents=True, exist_ok=True)
        (label / f"{index:04d}.png").write_bytes(to_png(image.numpy()))
    return folder


# ---------------------------------------------------------------- time


def time_claims(path: Path, rounds: int) -> list[Claim]:
    """Head and tail before and after channels are removed to a time."""
    torch.set_num_threads(1)
    bundle = Bundle.load(path)
    spec, settings = bundle.manifest.input, StructuredSettings()
    masks = soft_masks(network_of(bundle), spec, settings)
    with collecting(watched := network_of(bundle), settings.method) as collected:
        train(watched, golden_images(bundle, 4), Plan(batch=2), Terms.of(bundle.manifest))
    masks.scores = together([collected.arrays()])
    carved = carve(network_of(bundle), arrays_of(network_of(bundle)), masks, spec)
    before, after = beside([network_of(bundle), carved.network], spec, rounds=rounds)
    found = []
    for width in carved.network.widths:
        claim = f"time of the head of width {width:g} after structured pruning"
        share, target = 100 * after.heads[width] / before.heads[width], 50.0 if width == 1 else 100.0
        peer = f"{before.heads[width]:.3f} ms before, {after.heads[width]:.3f} after"
        found.append(claims.at_most(NAME, claim, share, unit="%", target=target, peer=peer))
    share = 100 * after.tails[0] / before.tails[0]
    peer = f"{before.tails[0]:.3f} ms before, {after.tails[0]:.3f} after"
    return [
        *found,
        claims.at_most(NAME, "time of the tail after structured pruning", share, unit="%", target=70, peer=peer),
    ]


if __name__ == "__main__":
    sys.exit(main())
