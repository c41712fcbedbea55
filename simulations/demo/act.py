"""What the demo's last act needs, and what it counts: two devices that learn, and a better bundle that they change to.

    training part of the data ── by lot ──> what each of the two devices learns from
                                      └──> what the server makes tables from
    test part, the first of the demo's own pictures ──> the frames of both, and what both bundles are measured on

So nothing is measured on pictures that anybody has learnt from, now or when the bundle was made.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from headwater.compression.datasets import open_dataset, split
from headwater.compression.signature import generate
from headwater.simulations.demo.station import Station
from headwater.simulations.demo.tally import Tally
from headwater.simulations.samples import labels_of
from headwater.simulations.trace import LinkTrace

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from headwater.compression.bundle import Bundle
    from headwater.compression.datasets import Item
    from headwater.device.record import FrameRecord
    from headwater.server.federation.survey import RoundFacts
    from headwater.simulations.samples import Sample

LEARNERS = (
    Station("LTE-like, 5 Mbit/s", LinkTrace.constant("learner-lte", 5_000_000, delay_s=0.03), 8),
    Station("Wi-Fi, 20 Mbit/s", LinkTrace.constant("learner-wifi", 20_000_000, delay_s=0.002), 8),
)
LEARNT, TABLES, SHOWN = 24, 96, 40
"""Labelled pictures of each device, pictures that tables are made from, test pictures; fewer if there are fewer."""
LEAST = 5
"""Labelled pictures that a device needs: one in five is held out there."""
NEEDED = ("torch", "flwr", "onnx")
_WEIGHTS = "weights.safetensors"  # compression.learning.reading has the name, and imports torch


@dataclass
class Span:
    """A part of the act; times by the monotonic clock, in s."""

    name: str
    began_s: float
    ended_s: float | None = None
    """None while it lasts."""


@dataclass
class Act:
    """Two learning devices and their frames; grows while the act runs."""

    folder: Path
    old: str
    """Short id of the bundle that all begin with."""
    labels: tuple[str, ...]
    tallies: list[Tally]
    learnt: int
    """Labelled pictures of each device."""
    shown: int
    """Test pictures, sent again and again."""
    spans: list[Span] = field(default_factory=list)
    round: RoundFacts | None = None
    """The federated round, when it is over."""
    refusals: dict[str, str] = field(default_factory=dict)
    """Why a device's update was not believed."""
    new: str = ""
    """Short id of the bundle that came of it, once it is released."""
    passed: str = ""
    """What the gate found."""
    refused: str = ""
    """Why the gate would not have the bundle at first; empty if it let it pass."""
    standings: dict[str, str] = field(default_factory=dict)
    """Of the devices that the release has reached: chosen, in use, refused, left."""
    note: str = ""
    """What went otherwise than planned."""

    @property
    def records(self) -> list[FrameRecord]:
        """Of both devices."""
        return [record for tally in self.tallies for record in tally.records]

    @property
    def lost(self) -> int:
        """Frames without an answer, those included that no record tells of."""
        gaps = (max((r.sequence for r in tally.records), default=0) - len(tally.records) for tally in self.tallies)
        return sum(record.status != "ok" for record in self.records) + sum(gaps)

    def answered(self, bundle: str) -> list[FrameRecord]:
        """Frames that a bundle coded and that were answered."""
        return [record for record in self.records if record.status == "ok" and record.bundle == bundle]

    def swapped(self, tally: Tally, frames: int) -> bool:
        """Whether a device has had so many answers with the new bundle."""
        return bool(self.new) and sum(record.bundle == self.new for record in tally.answered) >= frames

    def paired(self) -> tuple[int, float, float] | None:
        """Pictures that a device has sent with both bundles, counted by device, and the share right before and after.

        None where there is none. A picture that was sent several times counts by its mean.
        """
        found = [pair for tally in self.tallies for pair in self._pairs(tally)]
        if not found:
            return None
        before, after = zip(*found, strict=True)
        return len(found), fmean(before), fmean(after)

    def _pairs(self, tally: Tally) -> Iterable[tuple[float, float]]:
        right: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
        for record in tally.answered:
            right[record.name][record.bundle].append(tally.right(record))
        both = (found for found in right.values() if self.old in found and self.new in found)
        return [(fmean(found[self.old]), fmean(found[self.new])) for found in both]

    def standing(self) -> str:
        """How far the release is."""
        counts = Counter(self.standings.values())
        return ", ".join(f"{count} of {len(self.tallies)} {name}" for name, count in sorted(counts.items()))


def why_not(bundle: Bundle) -> str:
    """Why there can be no last act here, and what to do; empty if there can."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        return f"it needs {', '.join(missing)}; pip install 'headwater[federated]' brings them"
    if _WEIGHTS not in bundle.manifest.files:
        return f"the bundle has no {_WEIGHTS} to learn from; `headwater train` makes bundles that have it"
    if len(bundle.manifest.tasks) > 1:
        return "it is for bundles of one task"
    return ""


def lay_out(bundle: Bundle, source: str, samples: Sequence[Sample], folder: Path) -> Act | None:
    """Write everybody's pictures and a pair of keys; None where the data set has too few pictures to learn from.

    Raises :class:`DataError` if it cannot be read.
    """
    task = bundle.manifest.tasks[0]
    shutil.rmtree(folder, ignore_errors=True)
    train, _ = split(open_dataset(source))
    order = sorted(train.items, key=lambda item: hashlib.sha256(item.name.encode()).digest())
    learnt = min(LEARNT, len(order) // 4)
    if learnt < LEAST:
        return None
    answers = labels_of(train, task)
    for number, station in enumerate(LEARNERS):
        _write(order[number * learnt : (number + 1) * learnt], answers, folder / station.link.name)
    _write(order[len(LEARNERS) * learnt :][:TABLES], answers, folder / "server")
    shown = list(samples[:SHOWN])
    for sample in shown:
        for copy in (folder / "frames" / sample.path.name, folder / "server/test" / sample.label / sample.path.name):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(sample.path, copy)
    generate(folder / "release.key")
    by_name = {sample.path.name: sample for sample in shown}
    tallies = [Tally(station.link, station.title, station.fps, task.name, by_name) for station in LEARNERS]
    return Act(folder, bundle.short_id, tuple(task.labels), tallies, learnt, len(shown))


def _write(items: Iterable[Item], answers: dict[str, str], folder: Path) -> None:
    """A sub-folder a class, as docs/federated.md has it."""
    for item in items:
        path = folder / answers[item.name] / f"{hashlib.sha256(item.name.encode()).hexdigest()[:12]}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        item.load().save(path, compress_level=1)
