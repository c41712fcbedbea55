"""What the edge server adds to onnxruntime: CPU at saturation, latency when idle, goodput under overload, many streams.

    python -m benchmarks.serving                       # simulations/bundles/solar
    python -m benchmarks.serving --bundle PATH         # any other

The server is a process of its own with one worker on a core of its own (`--pin`), so that a core is left for its event
loop and for the load, which comes from another process (devices.py) over real sockets with frames coded beforehand. Its
own CPU is printed, never counted. Answers are compared with onnxruntime's before anything is timed and in every run
after. Run it on a machine that is otherwise idle.

When idle, a frame through the server and one without it take turns, both ends on one core (nothing is pinned): to wake
another that sleeps takes a virtual machine from a twentieth of a millisecond to several, by what its neighbours do. The
message is made before the clock starts and the answer read after it stops, as the latents of the bare loop are. One
frame in a hundred is late by what the machine does, a host that takes the core away for two milliseconds, and not by
what the server does: so what others took is not counted, on either side (undisturbed.py); the wall's times are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort
import psutil
from PIL import Image

from benchmarks import claims
from benchmarks.devices import Device, Plan, Result
from benchmarks.undisturbed import Undisturbed
from headwater.compression.bundle import Bundle
from headwater.compression.inference import session
from headwater.device.head import FrameMaker
from headwater.protos import edge_pb2 as pb
from headwater.server.tails import Tails

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.claims import Claim

NAME = "serving"
BUNDLE = Path("simulations/bundles/solar")
FRAMES = 64
DEVICES, WINDOW = 16, 8
OVERLOAD = 5
STREAMS = 500
SLEEP_S = 0.003
"""Before each frame when idle: long enough for the server to sleep."""
WARM = 20
"""Turns before those that count."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    own, rest = parser.parse_known_args(arguments)
    options = claims.options(__doc__, rest)
    bench = Bench(own.bundle, seconds=1.0 if options.quick else 4.0, rounds=1 if options.quick else 3)
    idle = bench.idle_claim(turns=300 if options.quick else 1500)
    rounds = bench.loaded()
    found = [bench.cpu_claim(rounds), idle, *bench.overload_claims(rounds), bench.streams_claim(rounds)]
    return claims.report(f"Serving {bench.bundle.manifest.name} on onnxruntime {ort.__version__}", found, options)


class Bench:
    """A bundle, frames of it, and what onnxruntime alone makes of them."""

    def __init__(self, path: Path, seconds: float, rounds: int) -> None:
        self.path, self.seconds, self.rounds = path, seconds, rounds
        self.bundle = Bundle.load(path)
        self.frames = coded_frames(self.bundle)
        self.latents, self.modes = decoded(self.bundle, self.frames)
        self.expected = Tails(self.bundle).run(self.latents, self.modes, [0] * FRAMES)
        self.peer = f"onnxruntime {ort.__version__}"
        self._sequence = count(1)

    # ------------------------------------------------------------ the claims

    def idle_claim(self, turns: int) -> Claim:
        with one_core() as core, self.server(pin=False):
            self.load(devices=2, window=4, seconds=0.5)  # asserts that the answers are right
            device, run = Device(self.host, self.port, "idle", self.bundle.id), Bare(self.bundle)
            with device.socket, Undisturbed(core, self.process.pid) as served, Undisturbed(core) as alone:
                if not alone.known:
                    print("idle: the kernel does not tell for how long a core idled; times are the wall's")
                self.turns_ms(device, run, served, alone, WARM)
                ms = self.turns_ms(device, run, served, alone, turns)
        for name, times in zip(("undisturbed", "by the wall"), ms, strict=True):
            p50, p99 = np.percentile(times, (50, 99), axis=1)
            print(f"idle, {name}: p50 and p99 {p50[0]:.2f} {p99[0]:.2f} ms served, {p50[1]:.2f} {p99[1]:.2f} ms alone")
        served_ms, alone_ms = np.percentile(ms[0], 99, axis=1)
        text = "added p99 when idle, over decoder and tails alone"
        return claims.at_most(NAME, text, float(served_ms - alone_ms), unit="ms", target=2.0, peer=self.peer)

    def loaded(self) -> list[Round]:
        """Rounds of: the saturated server, the same one overloaded, the bare loop; a slow minute falls on all three."""
        found = []
        for _ in range(self.rounds):
            with self.server():
                saturated = self.saturate()
                over = self.load(devices=DEVICES, rate=OVERLOAD * saturated.rate, seconds=self.seconds)
            found.append(Round(saturated, over, self.bare_us(saturated.batch)))
            print(found[-1])
        return found

    def cpu_claim(self, rounds: Sequence[Round]) -> Claim:
        ratio = median(one.saturated.server_us for one in rounds) / median(one.bare_us for one in rounds)
        return claims.at_most(
            NAME, "server CPU a frame at saturation, of a bare loop's", ratio, unit="x", target=1.18, peer=self.peer
        )

    def overload_claims(self, rounds: Sequence[Round]) -> list[Claim]:
        over = [one.over for one in rounds]
        offered = sum(one.sent / one.seconds for one in over) / sum(one.saturated.rate for one in rounds)
        refused = [float(np.percentile(one.refused_ms, 99)) for one in over if one.refused_ms]
        share = 100 * sum(map(goodput, over)) / sum(one.saturated.rate for one in rounds)
        times = f"{OVERLOAD} times the capacity"
        peer = f"itself at its peak; {offered:.1f} times were offered"
        return [
            claims.at_least(NAME, f"goodput at {times}, of its peak", share, unit="%", target=90, peer=peer),
            claims.at_most(
                NAME,
                f"p99 of a refusal at {times}",
                median(refused) if refused else None,
                unit="ms",
                target=20,
                peer="none" if refused else "none was refused: the load generator was the limit",
            ),
        ]

    def streams_claim(self, rounds: Sequence[Round]) -> Claim:
        rate = 0.5 * median(one.saturated.rate for one in rounds)
        with self.server("--queue", "1000"):
            many = self.load(devices=STREAMS, rate=rate, seconds=max(2.0, self.seconds))
        answered = 100 * many.answers.get("ok", 0) / many.sent
        print(f"{STREAMS} streams: {many.sent} frames, p99 {np.percentile(many.ok_ms, 99):.1f} ms")
        return claims.at_least(
            NAME, f"frames answered on {STREAMS} connected streams", answered, unit="%", target=100, peer="none"
        )

    # ------------------------------------------------------------ the server and its load

    @contextmanager
    def server(self, *arguments: str, pin: bool = True) -> Iterator[None]:
        """Run a server process; :meth:`load` and :meth:`saturate` talk to it."""
        command = [sys.executable, "-m", "headwater.compression.cli", "server", "--bundle", str(self.path)]
        command += ["--listen", "127.0.0.1:0", "--http", "", "--workers", "1", "--grace-s", "0", "--log-level", "error"]
        command += ["--pin"] if pin else []
        command += ["--max-greetings-per-s", "0"]  # all of a load's devices come at once, and none comes back
        with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                address = re.search(r"grpc=(\S+):(\d+)", line)
                assert address, f"the server said {line!r}"
                self.process = psutil.Process(process.pid)
                self.host, self.port = address[1], int(address[2])
                yield
            finally:
                process.terminate()

    def load(self, devices: int, seconds: float, window: int = 0, rate: float = 0.0) -> Result:
        """Run a load in another process; asserts that every sampled answer is onnxruntime's."""
        return self._load(devices, seconds, window, rate)[0]

    def saturate(self) -> Saturated:
        """Keep the queue full and see what a frame costs the server."""
        result, server_s = self._load(DEVICES, self.seconds, WINDOW, 0.0)
        frames = result.answers["ok"]
        sizes = {int(size): count / int(size) for size, count in result.batches.items()}
        batch = round(frames / sum(sizes.values()))
        return Saturated(frames / result.seconds, batch, 1e6 * server_s / frames, 1e6 * result.cpu_s / frames)

    def _load(self, devices: int, seconds: float, window: int, rate: float) -> tuple[Result, float]:
        frames = [b64encode(frame).decode() for frame in self.frames]
        plan = Plan(self.host, self.port, self.bundle.id.hex(), frames, devices, seconds, window, rate, warm_s=0.5)
        command = [sys.executable, "-m", "benchmarks.devices"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(asdict(plan)))
            process.stdin.close()
            _expect(process.stdout.readline(), "connected")
            _expect(process.stdout.readline(), "measuring")
            began = cpu_s(self.process)
            _expect(process.stdout.readline(), "measured")
            spent = cpu_s(self.process) - began
            result = Result(**json.loads(process.stdout.readline()))
        self._check(result)
        return result, spent

    def _check(self, result: Result) -> None:
        assert result.samples, "the server answered something"
        assert set(result.answers) <= {"ok", "busy"}, result.answers
        for index, scores in result.samples:
            self._check_scores(index, scores)

    def _check_scores(self, index: int, scores: list[list[float]]) -> None:
        expected = self.expected[index]
        assert expected is not None
        for got, wanted in zip(scores, expected.values(), strict=True):
            np.testing.assert_allclose(got, wanted, atol=2e-4)

    # ------------------------------------------------------------ onnxruntime alone

    def bare_us(self, batch: int) -> float:
        """CPU of decoder and tails a frame, in a loop over batches of this size, for half as long as the load."""
        run = Bare(self.bundle)
        rows = np.arange(batch) % FRAMES
        latents, modes = self.latents[rows], self.modes[rows]
        for _ in range(3):
            run(latents, modes)
        loops, began, cpu = 0, time.monotonic(), time.process_time()
        while time.monotonic() - began < self.seconds / 2:
            run(latents, modes)
            loops += 1
        return 1e6 * (time.process_time() - cpu) / loops / batch

    def turns_ms(
        self, device: Device, run: Bare, served: Undisturbed, alone: Undisturbed, turns: int
    ) -> NDArray[np.float64]:
        """Latencies [2, 2, turns], undisturbed and by the wall: of frames through the server, and of decoder and tails
        on the same ones, by turns."""
        ms = np.empty((2, 2, turns))
        for number in range(turns):
            row = number % FRAMES
            message = _message(next(self._sequence), self.frames[row])
            time.sleep(SLEEP_S)
            reply, *ms[:, 0, number] = served.seconds(partial(device.ask, message))
            self._check_scores(row, _scores(pb.ServerMessage.FromString(reply).answer))
            time.sleep(SLEEP_S)
            _, *ms[:, 1, number] = alone.seconds(partial(run, self.latents[row : row + 1], self.modes[row : row + 1]))
        return ms * 1e3


@dataclass(frozen=True)
class Saturated:
    """A saturated server."""

    rate: float
    """Frames a second."""
    batch: int
    """Frames of one, in the mean."""
    server_us: float
    """CPU of the server a frame."""
    load_us: float
    """That of the load generator."""


@dataclass(frozen=True)
class Round:
    """What one server did under load, and the bare loop after it."""

    saturated: Saturated
    over: Result
    """Under :data:`OVERLOAD` times the saturated rate."""
    bare_us: float
    """CPU of the bare loop a frame, in batches of the same size."""

    def __str__(self) -> str:
        full, over = self.saturated, self.over
        return (
            f"saturated: {full.rate:.0f} frames/s in batches of {full.batch}, CPU a frame: server {full.server_us:.0f} "
            f"us, bare loop {self.bare_us:.0f}, load generator {full.load_us:.0f}\noverloaded by "
            f"{over.sent / over.seconds:.0f} frames/s: {goodput(over):.0f} frames/s answered, load generator "
            f"{over.cpu_s / over.seconds:.0%} of a core"
        )


class Bare:
    """Decoder and tails without anything around them."""

    def __init__(self, bundle: Bundle) -> None:
        self._decoder = session(bundle.read("decoder.onnx"), batches=True)
        self._tails = [session(bundle.read(task.tail_file), batches=True) for task in bundle.manifest.tasks]

    def __call__(self, latents: NDArray[np.float32], modes: NDArray[np.int64]) -> None:
        (features,) = self._decoder.run(["features"], {"latent": latents, "mode": modes})
        for tail in self._tails:
            tail.run(["logits"], {"features": features})


def goodput(load: Result) -> float:
    """Frames answered with scores a second."""
    return load.answers.get("ok", 0) / load.seconds


@contextmanager
def one_core() -> Iterator[int]:
    """Keep this process, and those that it starts meanwhile, on one core; gives its number."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield min(before)
    finally:
        os.sched_setaffinity(0, before)


def coded_frames(bundle: Bundle) -> list[bytes]:
    """Frames in the stream form, of every mode in turn, of soft seeded pictures."""
    maker = FrameMaker(bundle)
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (8, 8, 3), np.uint8) for _ in range(FRAMES)]
    size = (bundle.manifest.input.width, bundle.manifest.input.height)
    soft = [Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC) for picture in pictures]
    return [maker.make(picture, index % len(bundle.manifest.modes)).data for index, picture in enumerate(soft)]


def decoded(bundle: Bundle, frames: list[bytes]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Latents [FRAMES, C, H, W] and modes [FRAMES]."""
    codec = bundle.frames()
    unpacked = [codec.unpack(frame) for frame in frames]
    modes = [frame.mode for frame in unpacked]
    groups = [frame.groups for frame in unpacked]
    latents, errors = bundle.coder().decode_batch([frame.payload for frame in unpacked], modes, groups)
    assert not any(errors)
    return latents, np.array(modes, np.int64)


def _message(sequence: int, data: bytes) -> bytes:
    return pb.DeviceMessage(frame=pb.FeatureFrame(sequence=sequence, data=data)).SerializeToString()


def _scores(answer: pb.Answer) -> list[list[float]]:
    return [list(task.scores) for task in answer.results]


def _expect(line: str, word: str) -> None:
    assert line.strip() == word, f"the load generator said {line!r} where {word} was due"


def cpu_s(process: psutil.Process) -> float:
    """What a process has spent so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    sys.exit(main())
