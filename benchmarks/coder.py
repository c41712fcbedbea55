"""The entropy coder against constriction's and CompressAI's: bytes, and time to encode and decode one frame.

For payloads of 50, 500 and 5,000 bytes, of dense latents (24 channels, half to three quarters zeros) and sparse ones
(80 to 98 % zeros), all coders get the same symbols and the same distributions, a Laplace one for each channel:

    ours            Coder.encode and Coder.decode, numpy arrays in and out
    constriction    every way of having a model a channel; what is claimed is a ratio to the fastest of them
    compressai      the `ans` extension, called with lists as EntropyBottleneck.compress and decompress do

Each coder's own preparation (tables, models, offsets, dtypes) is done before and not timed. The frames are many, so
that no branch predictor learns one by heart; the contenders take turns, and a claim is the median over the turns of the
ratio of their times; a turn of the largest frames lasts a hundred times as long as one of the smallest, so that a third
of the turns are enough. A claim of speed is for the worse of the two kinds of latent.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import claims
from benchmarks.contenders import Contender, Peer, Sample, Shape, draw, ours, peers_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

FULL = [
    Shape("dense", 50, 24, 4),
    Shape("dense", 500, 24, 10),
    Shape("dense", 5000, 24, 32),
    Shape("sparse", 50, 12, 16),
    Shape("sparse", 500, 24, 24),
    Shape("sparse", 5000, 24, 64),
]
LARGE = 5000
"""Bytes of a frame from which on fewer turns are taken."""


# ------------------------------------------------------------------------------------------------------------- timing


def seconds(calls: list[Callable[[], Any]]) -> float:
    """Mean time of a call."""
    begin = time.perf_counter()
    for call in calls:
        call()
    return (time.perf_counter() - begin) / len(calls)


def race(lanes: Sequence[list[Callable[[], Any]]], turns: int) -> NDArray[np.float64]:
    """Time [turns, contender] of a call; each turn every contender goes through all its frames once."""
    for calls in lanes:
        seconds(calls)
    gc.collect()
    gc.disable()
    try:
        return np.array([[seconds(calls) for calls in lanes] for _ in range(turns)])
    finally:
        gc.enable()


class Result(NamedTuple):
    """One direction (encode or decode) of one sample."""

    shape: Shape
    direction: str
    microseconds: dict[str, float]
    """Median of each contender."""
    ratios: dict[str, tuple[float, str]]
    """Of each peer package: how many times faster we are than its fastest way, and which that is."""


def measure(sample: Sample, own: Contender, peers: list[Peer], direction: str, turns: int) -> Result:
    """Let all contenders take a few turns, then us and each package's fastest all of them."""
    everyone = [own, *(contender for peer in peers for contender in peer.contenders)]
    trial = np.median(race([calls_of(each, direction) for each in everyone], min(turns, 3)), axis=0)
    medians = {each.name: float(time_s) * 1e6 for each, time_s in zip(everyone, trial, strict=True)}
    best = {
        peer.package: min(peer.contenders, key=lambda each: medians[each.name]) for peer in peers if peer.contenders
    }
    finalists = [own, *best.values()]
    times = race([calls_of(each, direction) for each in finalists], turns)
    medians |= {each.name: float(t) * 1e6 for each, t in zip(finalists, np.median(times, axis=0), strict=True)}
    ratios = np.median(times[:, 1:] / times[:, :1], axis=0)
    named = {package: (float(r), each.name) for (package, each), r in zip(best.items(), ratios, strict=True)}
    return Result(sample.shape, direction, medians, named)


def turns_of(shape: Shape) -> int:
    """Turns of all frames of a shape, odd."""
    return 61 if shape.payload_bytes < LARGE else 21


def calls_of(contender: Contender, direction: str) -> list[Callable[[], Any]]:
    """The calls to time."""
    return contender.encoders if direction == "encode" else contender.decoders


# ------------------------------------------------------------------------------------------------------------- claims

TARGETS = {
    ("encode", "constriction"): 1.3,
    ("encode", "compressai"): 10,
    ("decode", "constriction"): 4,
    ("decode", "compressai"): 4,
}


def speed_claims(results: list[Result], missing: dict[str, str]) -> list[claims.Claim]:
    """For each size, direction and peer the worse of the two kinds of latent."""
    found = []
    for size in dict.fromkeys(result.shape.payload_bytes for result in results):
        for (direction, package), target in TARGETS.items():
            ratios = [
                (*r.ratios[package], r.shape.kind)
                for r in results
                if (r.shape.payload_bytes, r.direction) == (size, direction) and package in r.ratios
            ]
            value, peer = None, missing.get(package, "")
            if ratios:
                value, name, kind = min(ratios)
                peer = f"{name}; {kind} latent"
            what = f"{direction}, {size} bytes, against {package}"
            found.append(claims.at_least("coder", what, value, unit="x", target=target, peer=peer))
    return found


def byte_claim(size: int, pairs: list[tuple[Sample, Contender]]) -> claims.Claim:
    """The most that any frame of this size takes over its ideal and 0.3 %."""
    over = max(
        taken - 1.003 * sample.ideal_bytes(frame)
        for sample, own in pairs
        if sample.shape.payload_bytes == size
        for frame, taken in zip(sample.frames, own.bytes, strict=True)
    )
    what = f"bytes over ideal + 0.3 %, {size} bytes, worst frame"
    return claims.at_most("coder", what, over, unit="bytes", target=4, peer="the symbols' information")


def details(samples: list[tuple[Sample, Contender, list[Peer]]], results: list[Result]) -> Table:
    """Every contender's median time and mean bytes."""
    table = Table(title="Median time of a frame", title_justify="left")
    for name in ("latent", "coder", "bytes", "encode µs", "decode µs"):
        table.add_column(name, justify="left" if name in ("latent", "coder") else "right")
    for sample, own, peers in samples:
        times = {r.direction: r.microseconds for r in results if r.shape == sample.shape}
        c, _, s, side = sample.shape.channels, 0, sample.shape, sample.shape.side
        zeros = np.mean([frame == 0 for frame in sample.frames])
        label = f"{s.kind} {c}x{side}x{side}, {zeros:.0%} zeros"
        ideal = np.mean([sample.ideal_bytes(frame) for frame in sample.frames])
        table.add_row(label, "ideal", f"{ideal:.1f}", "", "")
        for each in [own, *(contender for peer in peers for contender in peer.contenders)]:
            encode, decode = (f"{times[direction][each.name]:.1f}" for direction in ("encode", "decode"))
            table.add_row("", each.name, f"{np.mean(each.bytes):.1f}", encode, decode)
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it."""
    options = claims.options(__doc__, arguments)
    shapes = FULL[::3] if options.quick else FULL
    frames = 4 if options.quick else 16
    samples, results = [], []
    for shape in shapes:
        turns = 3 if options.quick else turns_of(shape)
        sample = draw(shape, frames)
        own, peers = ours(sample), peers_of(sample)
        samples.append((sample, own, peers))
        results += [measure(sample, own, peers, direction, turns) for direction in ("encode", "decode")]
    Console().print(details(samples, results))
    missing = {peer.package: peer.missing for _, _, peers in samples for peer in peers}
    sizes = dict.fromkeys(shape.payload_bytes for shape in shapes)
    found = [byte_claim(size, [(sample, own) for sample, own, _ in samples]) for size in sizes]
    return claims.report("Entropy coder", found + speed_claims(results, missing), options)


if __name__ == "__main__":
    sys.exit(main())
