"""What the device end takes: space, memory, start-up, and the head's time beside running the whole model.

    python -m benchmarks.footprint                     # simulations/bundles/solar
    python -m benchmarks.footprint --bundle PATH       # any other

The head is checked first: every mode's symbols against a plain onnxruntime session's. Times are medians of runs that
take turns: head of each width, whole model, head again. Memory is that of a real agent process that answers pictures
through a real server process, after some hundred of them.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort
from packaging.requirements import Requirement
from PIL import Image

from benchmarks import claims
from headwater.compression.bundle import Bundle
from headwater.device.head import Head
from headwater.device.profile import profile
from headwater.device.record import read_records
from headwater.simulations.processes import Child

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from benchmarks.claims import Claim

NAME = "footprint"
BUNDLE = Path("simulations/bundles/solar")
SIDE = 300
START_TIMEOUT_S = 60.0

_IMPORT = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    own, rest = parser.parse_known_args(arguments)
    options = claims.options(__doc__, rest)
    bundle = Bundle.load(own.bundle)
    check_head(bundle)
    found = [
        *install_claims(),
        *import_claims(3 if options.quick else 7),
        memory_claim(own.bundle, 40 if options.quick else 300),
        switch_claim(bundle, 20 if options.quick else 1000),
        *head_claims(bundle, 20 if options.quick else 300),
    ]
    return claims.report(f"Footprint of the device end: {bundle.manifest.name}", found, options)


# ---------------------------------------------------------------- right before quick


def check_head(bundle: Bundle) -> None:
    """Every mode's symbols are those of onnxruntime as it comes, but for a rounding here and there."""
    head = Head(bundle)
    image = np.random.default_rng(0).integers(0, 256, bundle.manifest.input.shape, dtype=np.uint8)
    for mode in bundle.manifest.modes:
        reference = ort.InferenceSession(bundle.read(mode.head_file), providers=["CPUExecutionProvider"])
        latent = reference.run(["latent"], {"image": image[np.newaxis]})[0][0]
        gain = bundle.tables.gain[mode.index, : mode.channels, np.newaxis, np.newaxis]
        wanted = np.clip(np.rint(latent * gain), -32768, 32767)
        symbols = head.quantise(head.latent(image, mode.width), mode.index)
        difference = np.abs(symbols - wanted)
        assert difference.max() <= 1, f"mode {mode.index}: symbols differ by {difference.max()}"
        assert np.mean(difference > 0) < 0.002, f"mode {mode.index}: {np.mean(difference > 0):.2%} of symbols differ"


# ---------------------------------------------------------------- space and start-up


def install_claims() -> list[Claim]:
    """Size of headwater's core dependencies as they are installed here; torch's, which it does without, beside it."""
    sizes = {name: size_mb(name) for name in sorted(closure("headwater"))}
    largest = ", ".join(f"{name} {size:.0f}" for name, size in sorted(sizes.items(), key=lambda item: -item[1])[:4])
    peer = f"{len(sizes)} packages; largest, MB: {largest}"
    try:
        peer += f"; torch alone {size_mb('torch'):.0f}"
    except metadata.PackageNotFoundError:
        peer += "; torch is not installed here"
    return [claims.at_most(NAME, "installed size of the core", sum(sizes.values()), unit="MB", target=250, peer=peer)]


def closure(distribution: str) -> set[str]:
    """Names of a distribution and of all that it needs without extras."""
    found: set[str] = set()
    waiting = [distribution]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        found.add(name)
        for text in metadata.requires(name) or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return found


def size_mb(distribution: str) -> float:
    """Size of the files that were installed, without the byte code that Python adds."""
    paths = [Path(str(file.locate())) for file in metadata.files(distribution) or ()]
    return sum(path.stat().st_size for path in paths if path.suffix != ".pyc" and path.is_file()) / 1e6


def import_claims(rounds: int) -> list[Claim]:
    """Time to import the agent in a fresh process, beside onnxruntime with gRPC alone; all compiled to byte code.

    As pip leaves it, whatever the environment says of writing byte code.
    """
    modules = {"agent": "headwater.device.agent", "engine": "onnxruntime, grpc.aio"}
    times: dict[str, list[float]] = {name: [] for name in modules}
    with tempfile.TemporaryDirectory() as folder:
        for turn, (name, module) in itertools.product(range(1 + rounds), modules.items()):
            seconds = _import_s(module, folder)
            assert seconds is not None, f"{module} cannot be imported"
            if turn:  # the first one compiled
                times[name].append(seconds)
        torch_s = _import_s("torch", folder)  # which nothing is claimed of, once
    engine_s = median(times["engine"])
    peer = f"onnxruntime and grpc alone {engine_s:.2f} s"
    peer += ", torch is not installed here" if torch_s is None else f", torch alone {torch_s:.2f} s"
    ratio = median(times["agent"]) / engine_s
    return [claims.at_most(NAME, "import of the agent against its engine", ratio, unit="x", target=2.0, peer=peer)]


def _import_s(module: str, folder: str) -> float | None:
    """Seconds that a fresh process imports a module in, with its byte code in this folder; None where it cannot."""
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": folder}
    code = [sys.executable, "-c", _IMPORT.format(module)]
    result = subprocess.run(code, capture_output=True, text=True, check=False, env=env)
    return float(result.stdout) if result.returncode == 0 else None


# ---------------------------------------------------------------- memory


def memory_claim(bundle: Path, frames: int) -> Claim:
    """Resident memory of an agent process that has answered so many frames."""
    with tempfile.TemporaryDirectory() as folder:
        resident_mb, modes = asyncio.run(_agent_memory(bundle, Path(folder), frames))
    peer = f"after {frames} frames in {modes} modes, all widths loaded"
    return claims.at_most(NAME, "resident memory of the agent", resident_mb, unit="MB", target=150, peer=peer)


async def _agent_memory(bundle: Path, folder: Path, frames: int) -> tuple[float, int]:
    photos = await asyncio.to_thread(_photos, folder / "photos")
    listen = ["--listen", "127.0.0.1:0", "--http", ""]
    async with Child("server", ["server", "--bundle", str(bundle), *listen], folder / "server.log") as server:
        ready = await server.line("headwater server ready", START_TIMEOUT_S)
        address = next(word for word in ready.split() if word.startswith("grpc=")).removeprefix("grpc=")
        records = folder / "records.jsonl"
        words = ["--bundle", str(bundle), "--server", address, "--source", str(photos), "--repeat"]
        agent = Child("agent", ["device", *words, "--records", str(records)], folder / "agent.log")
        async with agent:
            while _count(records) < frames:
                await asyncio.sleep(0.05)
                assert agent.status is None, (folder / "agent.log").read_text("utf-8")
            resident_mb = _resident_mb(agent.pid)
    answered = list(read_records(records))
    assert all(record.status == "ok" for record in answered), "a frame had no answer"
    return resident_mb, len({record.mode for record in answered})


def _photos(folder: Path) -> Path:
    """Pictures of the size of the solar cells', so that decoding takes what it takes there."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(16):
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def _count(records: Path) -> int:
    return records.read_bytes().count(b"\n") if records.exists() else 0


def _resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024 / 1e6


# ---------------------------------------------------------------- time


def switch_claim(bundle: Bundle, rounds: int) -> Claim:
    """What a change of the width adds to the run after it: A A B B A A ..., second runs against first ones."""
    head = Head(bundle)
    image = np.random.default_rng(0).integers(0, 256, head.input.shape, dtype=np.uint8)
    changed: dict[float, list[float]] = {width: [] for width in bundle.manifest.widths}
    stayed: dict[float, list[float]] = {width: [] for width in bundle.manifest.widths}
    for width in _turns(bundle.manifest.widths, rounds):
        changed[width].append(_run_ms(head, image, width))
        stayed[width].append(_run_ms(head, image, width))
    added_ms = max(median(changed[width]) - median(stayed[width]) for width in changed)
    peer = f"slowest of {len(changed)} widths; same head again {median(stayed[max(stayed)]):.3f} ms"
    return claims.at_most(NAME, "change of the mode", max(added_ms, 0.0), unit="ms", target=0.1, peer=peer)


def _turns(widths: Sequence[float], rounds: int) -> Iterator[float]:
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        yield from rng.permutation(np.array(widths)).tolist()


def _run_ms(head: Head, image: NDArray[np.uint8], width: float) -> float:
    begin = time.perf_counter()
    head.latent(image, width)
    return (time.perf_counter() - begin) * 1e3


def head_claims(bundle: Bundle, rounds: int) -> list[Claim]:
    """Head of the widest and the narrowest width against the whole model on this machine, one thread."""
    rows, whole_ms = profile(bundle, threads=1, rounds=rounds)
    by_width = {row.width: row for row in rows}
    peer = "local.onnx is not in the bundle" if whole_ms is None else f"whole model {whole_ms:.3f} ms, onnxruntime"
    found = []
    for width, target in ((max(by_width), 30.0), (min(by_width), 10.0)):
        share = None if whole_ms is None else 100 * by_width[width].head_ms / whole_ms
        claim = f"time of the head of width {width:g}, {by_width[width].head_ms:.3f} ms"
        found.append(claims.at_most(NAME, claim, share, unit="%", target=target, peer=peer))
    return found


if __name__ == "__main__":
    sys.exit(main())
