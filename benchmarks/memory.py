"""What pruning saves: memory of a device's training process, and time of head and tail.

    python -m benchmarks.memory                     # simulations/bundles/solar
    python -m benchmarks.memory --bundle PATH       # any other that `headwater train` or a rollout wrote

Memory: each way of training runs in a process of its own, one thread, on the bundle's golden images. A first step with
one image brings in what is loaded on first use; what the process takes then is its idle level, and the figure is the
most above it in a round. Dense is the same network, trained as in any other round. Beside FedMef with both of its parts
stand runs with one of them switched off, and one with the masks alone. Before any of it, that forward is the same,
pruned or not, is asserted.

Time: channels are chosen by one pass over the golden images and removed, nothing is learnt: how accurate such a network
is after learning is no matter here. Heads and tails before and after take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import claims

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.claims import Claim
    from headwater.compression.bundle import Bundle
    from headwater.compression.learning.network import SplitNetwork
    from headwater.compression.learning.samples import Samples

NAME = "memory"
BUNDLE = Path("simulations/bundles/solar")
DENSITY, KEEP, EXTRUDE = 0.3, 0.3, 0.2
WAYS: Mapping[str, Mapping[str, float]] = {
    "dense": {},
    "sparse": {"density": DENSITY, "keep": KEEP, "extrude": EXTRUDE, "due": 0.2},
    "without extrusion": {"density": DENSITY, "keep": KEEP},
    "without activation pruning": {"density": DENSITY, "extrude": EXTRUDE, "due": 0.2},
    "masks alone": {"density": DENSITY},
}
# Large blocks go back to the system when they are freed, so that the peak is what is in use, not what lies in pieces.
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "1048576", "OMP_NUM_THREADS": "1"}
IMAGES, BATCH = 32, 16


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    own, rest = parser.parse_known_args(arguments)
    if own.child is not None:
        print(json.dumps(child(own.bundle, json.loads(own.child))))
        return 0
    options = claims.options(__doc__, rest)
    images, batch = (4, 2) if options.quick else (IMAGES, BATCH)
    found = [memory_claim(own.bundle, images, batch), *time_claims(own.bundle, 3 if options.quick else 60)]
    return claims.report("Memory of training, and time after structured pruning", found, options)


# ---------------------------------------------------------------- memory


def memory_claim(bundle: Path, images: int, batch: int) -> Claim:
    """How much less sparse training takes than dense."""
    peaks = {way: measured(bundle, {**how, "images": images, "batch": batch}) for way, how in WAYS.items()}
    dense = peaks["dense"]["peak_mb"]
    shares = {way: 100 * (1 - found["peak_mb"] / dense) for way, found in peaks.items()}
    others = ", ".join(f"{way} {shares[way]:.0f} %" for way in WAYS if way not in {"dense", "sparse"})
    slower = peaks["sparse"]["seconds"] / peaks["dense"]["seconds"]
    peer = f"dense {dense:.0f} MB at batch {batch}, {slower:.1f} x the time; {others}"
    claim = f"memory of training above idle, density {DENSITY}, kept {KEEP}: saved"
    return claims.at_least(NAME, claim, shares["sparse"], unit="%", target=40, peer=peer)


def measured(bundle: Path, how: Mapping[str, float]) -> dict[str, float]:
    """The figures of a process that trains so."""
    command = [sys.executable, "-m", "benchmarks.memory", "--bundle", str(bundle), "--child", json.dumps(how)]
    done = subprocess.run(command, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def child(path: Path, how: Mapping[str, Any]) -> dict[str, float]:
    """Train one round as a device does; what it took above the idle level."""
    import torch

    from headwater.compression.bundle import Bundle
    from headwater.compression.learning.arrays import arrays_of
    from headwater.compression.learning.plan import Plan
    from headwater.compression.learning.reading import network_of
    from headwater.compression.learning.sparse import SparsePlan, sparsity_from
    from headwater.compression.learning.terms import Terms
    from headwater.compression.learning.train import train

    torch.set_num_threads(1)
    bundle = Bundle.load(path)
    network, terms = network_of(bundle), Terms.of(bundle.manifest)
    asked = {name: how[name] for name in ("density", "keep", "extrude", "due") if name in how}
    text = SparsePlan(**asked, grow=True).to_json() if asked else ""
    check_forward(network, bundle, how.get("keep", 1.0))

    def round_of(images: int, batch: int) -> Mapping[str, float]:
        sparsity = sparsity_from(network, text, None, arrays_of(network))
        samples = golden_images(bundle, images)
        return train(network, samples, Plan(batch=batch, rate=1e-4), terms, sparsity).metrics

    round_of(1, 1)
    found = round_of(int(how["images"]), int(how["batch"]))
    return {"peak_mb": found["peak-bytes"] / 1e6, "seconds": found["seconds"], "loss": found["loss"]}


def check_forward(network: SplitNetwork, bundle: Bundle, keep: float) -> None:
    """Forward is exact, whatever is kept for backward."""
    import torch

    from headwater.compression.learning.samples import normalise
    from headwater.compression.learning.sparse import keeping

    images = normalise(golden_images(bundle, 2).images)
    with torch.no_grad():
        wanted = network.head(images, network.widths[-1])
    with keeping(network, keep):
        found = network.head(images, network.widths[-1])
    torch.testing.assert_close(found.detach(), wanted, rtol=1e-3, atol=1e-3)


def golden_images(bundle: Bundle, count: int) -> Samples:
    """The bundle's own images, again and again, with labels of its first task in turn."""
    import torch

    from headwater.compression.learning.samples import Samples

    images = torch.from_numpy(bundle.arrays("golden.safetensors")["image"].copy())
    task = next(task for task in bundle.manifest.tasks if task.labels)
    labels = {task.name: torch.arange(count) % len(task.labels)}
    return Samples(images[torch.arange(count) % len(images)], labels)


# ---------------------------------------------------------------- time


def time_claims(path: Path, rounds: int) -> list[Claim]:
    """Head and tail before and after channels are removed to a time."""
    import torch

    from headwater.compression.bundle import Bundle
    from headwater.compression.learning.importance import collecting, together
    from headwater.compression.learning.plan import Plan
    from headwater.compression.learning.reading import network_of
    from headwater.compression.learning.terms import Terms
    from headwater.compression.learning.train import train
    from headwater.server.federation.latency import beside
    from headwater.server.federation.soft_masks import StructuredSettings
    from headwater.server.federation.structured import carve, soft_masks

    torch.set_num_threads(1)
    bundle = Bundle.load(path)
    spec, settings = bundle.manifest.input, StructuredSettings()
    masks = soft_masks(network_of(bundle), spec, settings)
    with collecting(watched := network_of(bundle), settings.method) as collected:
        train(watched, golden_images(bundle, 4), Plan(batch=2), Terms.of(bundle.manifest))
    masks.scores = together([collected.arrays()])
    from headwater.compression.learning.arrays import arrays_of

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
