"""How large a run of the benchmark is, who takes part, and which runs that makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.deadlines.rig import Contender, Job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.deadlines.links import BenchLink
    from benchmarks.deadlines.oracle import Option
    from benchmarks.deadlines.pictures import Pictures
    from benchmarks.deadlines.times import Times
    from headwater.compression.bundle import Bundle

OURS = "ours"
SERVER = "ours, server only"
"""The same rule for a bundle without a local exit, so that the server's answer is all that there is."""
PRESENT = "knows the present rate"
"""One without a local exit that is told what the link carries, reckoned: see :mod:`benchmarks.deadlines.present`."""
WHOLE = "ours, whole model allowed"
MEAN = "mean bandwidth"
DEADLINES_MS = (100, 300, 600)
SHOWN_LINKS = ("lte-m", "nb-iot", "drop-100k", "black-outs")
"""Those on which all contenders run where not all can run on all."""
SHOWN_DEADLINE_MS = 300


JPEGS = ((1.0, 75), (0.5, 50))
"""Side, of the network's input's, and quality."""


@dataclass(frozen=True)
class Size:
    """How much is run."""

    seconds: float
    """Of each run."""
    pictures: int
    """That the frames are of, in turn."""
    rounds: int
    """Of each way of answering, when device and server are measured alone."""
    deadlines_ms: tuple[int, ...] = DEADLINES_MS
    everywhere: bool = False
    """All contenders on all links, at all deadlines."""
    links: tuple[str, ...] = ()
    """Only these; empty for all."""
    kills: int = 20
    """Of servers."""
    pairs: int = 4
    """Servers with a device each that the kills are spread over."""
    stress_s: float = 3.0
    """How long the device's processor is kept busy."""
    fps: float = 5.0


USUAL = Size(seconds=6, pictures=240, rounds=12)
FULL = Size(seconds=60, pictures=656, rounds=40, everywhere=True)
QUICK = Size(
    seconds=1.6, pictures=12, rounds=2, deadlines_ms=(300,), links=("drop-100k",), kills=1, pairs=1, stress_s=2
)


@dataclass(frozen=True)
class Entry:
    """A run that is to be made."""

    contender: Contender
    link: BenchLink
    seed: int
    deadline_ms: int
    numbers: tuple[int, ...]
    """Which picture each frame is of."""
    job: Job


def contenders(bundle: Bundle, options: Sequence[Option], times: Times) -> list[Contender]:
    """All rows of the table, ours first."""
    modes, spec = bundle.manifest.modes, bundle.manifest.input
    coarsest = min(modes, key=lambda mode: mode.mean_bytes)
    finest = max(modes, key=lambda mode: mode.mean_bytes)
    local = max((option for option in options if option.action == "local"), key=lambda o: o.accuracy, default=None)
    found = [
        Contender(OURS, "ours"),
        Contender(SERVER, "server"),
        Contender(MEAN, "mean", {"encode_ms": times.send_ms}),
    ]
    for name, mode in (("coarsest", coarsest), ("finest", finest)):
        found.append(Contender(f"always the {name}, {mode.width:g}/{mode.gain}", "fixed", {"mode": mode.index}))
    if local is not None:
        found.append(Contender(f"local only, width {modes[local.mode].width:g}", "local", {"mode": local.mode}))
    for scale, quality in JPEGS:
        side = round(spec.width * scale)
        found.append(Contender(f"JPEG {side} q{quality}", "jpeg", {"side": side, "quality": quality}))
    return [*found, Contender(WHOLE, "ours", settings={"whole_model": True})]


def entries(
    size: Size, who: Sequence[Contender], links: Sequence[BenchLink], seeds: Sequence[int], pictures: Pictures
) -> list[Entry]:
    """Every run, those side by side in one wave of the same kind where possible."""
    chosen = [link for link in links if not size.links or link.name in size.links]
    made = []
    for contender in who:
        for deadline_ms in size.deadlines_ms:
            for at, link in enumerate(chosen):
                if contender.name in {OURS, SERVER} or size.everywhere or _shown(size, link, deadline_ms):
                    made += [_entry(size, contender, link, seed, deadline_ms, pictures, at) for seed in seeds]
    return made


def _shown(size: Size, link: BenchLink, deadline_ms: int) -> bool:
    return deadline_ms == SHOWN_DEADLINE_MS and link.name in (size.links or SHOWN_LINKS)


def _entry(
    size: Size, contender: Contender, link: BenchLink, seed: int, deadline_ms: int, pictures: Pictures, at: int
) -> Entry:
    # The same pictures at the same moments for all contenders and deadlines of a link; other links have other ones.
    count = max(round(size.seconds * size.fps), 1)
    first = (at + 31 * seed) * count
    numbers = tuple((first + number) % len(pictures) for number in range(count))
    phase_s = (at * 0.618) % 1 / size.fps  # spread, so that devices side by side do not take pictures in one moment
    samples = [pictures.samples[number] for number in numbers]
    job = Job(contender, link.make(seed), samples, deadline_ms, size.fps, phase_s)
    return Entry(contender, link, seed, deadline_ms, numbers, job)
