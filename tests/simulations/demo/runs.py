"""A run that never ran: tallies with made-up records, for what is reckoned from them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from headwater.device.record import FrameRecord, Result, ServerTimes
from headwater.simulations.demo.run import DemoOptions, Run
from headwater.simulations.demo.station import Station
from headwater.simulations.demo.tally import Tally
from headwater.simulations.samples import Sample
from headwater.simulations.trace import LinkTrace
from tests import tiny

if TYPE_CHECKING:
    from headwater.compression.bundle import Bundle

EPOCH_S = 1_800_000_000.0
SLOW = LinkTrace.constant("slow", 8_000, delay_s=0.1)
FAST = LinkTrace.constant("fast", 8_000_000, delay_s=0.001)
LABELS = tiny.TASKS[0].labels


def samples(folder: Path, count: int) -> list[Sample]:
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for index in range(count):
        path = folder / f"{index:05d}.png"
        Image.fromarray(tiny.image(index)[0]).save(path)
        made.append(Sample(index, f"{LABELS[index % 3]}/{index}.png", LABELS[index % 3], path))
    return made


def record(
    index: int, *, taken_s: float, latency_ms: float = 400.0, label: str | None = None, **given: object
) -> FrameRecord:
    """Frame of sample `index`, taken so many seconds after the epoch; 30 bytes, right unless a label is given."""
    label = LABELS[index % 3] if label is None else label
    fields: dict[str, object] = {
        "sequence": index + 1,
        "name": f"{index:05d}.png",
        "taken": datetime.fromtimestamp(EPOCH_S + taken_s, UTC).isoformat(timespec="milliseconds"),
        "source": "edge",
        "status": "ok",
        "detail": "",
        "mode": 0,
        "width": 0.25,
        "gain": 0,
        "groups": 3,
        "bytes": 30,
        "attempts": 1,
        "latency_ms": latency_ms,
        "prepare_ms": 1.0,
        "head_ms": 2.0,
        "code_ms": 0.5,
        "wait_ms": 0.0,
        "round_trip_ms": latency_ms - 10.0,
        "server": ServerTimes(queue_us=1000, decode_us=2000, run_us=3000, batch=1),
        "results": {"shape": Result(label, 0.9, {name: 0.9 if name == label else 0.05 for name in LABELS})},
        "truth": {},
    }
    return FrameRecord(**(fields | given))  # type: ignore[arg-type]


def tally(made: list[Sample], link: LinkTrace = SLOW, title: str = "slow, 8 kbit/s") -> Tally:
    return Tally(link, title, 2.0, "shape", {sample.path.name: sample for sample in made}, wall_offset_s=EPOCH_S)


def run(bundle: Bundle, folder: Path, count: int = 24) -> Run:
    """Two links; the slow one got through half of the pictures and gave one wrong answer."""
    made = samples(folder / "pictures", count)
    slow, fast = tally(made), tally(made, FAST, "fast, 8 Mbit/s")
    for index in range(count // 2):
        slow.add(record(index, taken_s=index * 0.5, label=LABELS[0] if index == 4 else None))
    for index in range(count):
        fast.add(record(index, taken_s=index * 0.1, latency_ms=20.0, width=1.0, gain=3))
    stations = [Station(one.title, one.link, one.fps) for one in (slow, fast)]
    options = DemoOptions(Path("tiny.zip"), source="folder", out=folder, codec_pictures=count, stations=stations)
    return Run(options, bundle, made, [slow, fast], seconds=12.0)
