"""``headwater simulate calibrate``: measure here, replay in the twin, show both.

bundle, pictures ──> real devices and server ──> calibration.toml
                          │ the same again, on the link that is asked for
                          ├──> real answer times, bytes, misses ──┐
                          └──> replay in the twin ────────────────┴──> side by side, and the errors
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from headwater.compression.bundle import Bundle
from headwater.compression.errors import SettingsError
from headwater.compression.settings import nearest
from headwater.device.settings import DeviceSettings
from headwater.simulations.fleet import measuring, replay
from headwater.simulations.fleet.comparing import Comparison, beside, distributions, write_html
from headwater.simulations.fleet.radios import READY, Radio, table_of
from headwater.simulations.fleet.reading import read
from headwater.simulations.fleet.stage import Stage, on_time
from headwater.simulations.fleet.traffic import Traffic
from headwater.simulations.samples import take_samples
from headwater.simulations.trace import LinkTrace, Trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.simulations.fleet.calibration import Calibration
    from headwater.simulations.fleet.stage import Played

PICTURES = 120
"""That the frames are of, at most."""
CARRYING = sorted(name for name, table in READY.items() if "levels" in table)
"""Links that the proxy can stand for: those with a rate."""


@dataclass(frozen=True)
class Options:
    """What a calibration can be told."""

    bundle: Path
    source: str | None = None
    """Data set whose test pictures are used; None for the bundle's own."""
    seconds: float = 20.0
    """Of each run: two to calibrate, one to check."""
    devices: int = 2
    """Side by side, each a process; all of them, the server and the links share this machine's processor."""
    fps: float = 5.0
    link: str = "wifi"
    """Of the run that is checked; see :data:`CARRYING`."""
    deadline_ms: int = 300
    seed: int = 0
    """Of the pictures' order and the link's weather."""
    work: Path = Path("out/calibrate")
    """Folder for pictures, records and logs."""


def link_of(name: str, seed: int = 0) -> LinkTrace:
    """A ready link as the proxy carries it: its rates and delays, without sleep; raises :class:`SettingsError`."""
    if name not in CARRYING:
        raise SettingsError(f"calibrate has no link {name}; {nearest(name, CARRYING)}")
    radio = read(Radio, table_of(name), f"link {name}")
    ways = [
        [(level.up_bit_s, level.stay_s) for level in radio.levels],
        [(level.down_bit_s, level.stay_s) for level in radio.levels],
    ]
    up, down = (Trace.constant(way[0][0]) if len(way) == 1 else Trace.markov(seed, way, radio.walk_s) for way in ways)
    return LinkTrace(name, up, down, radio.up_delay_ms / 1e3, radio.down_delay_ms / 1e3)


def checked_run(options: Options) -> Traffic:
    """The run that is replayed: the product's own rule, on the link that is asked for."""
    link = link_of(options.link, options.seed)
    title = f"{options.devices} on {options.link}, {options.deadline_ms} ms"
    return Traffic(title, link, options.devices, options.fps, options.seconds, options.deadline_ms, seed=options.seed)


async def calibrate(
    options: Options, on_done: Callable[[Played], object] = lambda _: None
) -> tuple[Calibration, Comparison]:
    """Measure, and hold a replay against a run that was not measured by; `on_done` gets each run of real devices.

    Raises :class:`BundleError`, :class:`DataError`, :class:`SettingsError` and :class:`ChildError`.
    """
    bundle = Bundle.load(options.bundle)
    task, checked = bundle.manifest.tasks[0], checked_run(options)
    settings = DeviceSettings(tasks=(task.name,), deadline_ms=options.deadline_ms)
    source = options.source or str(bundle.manifest.data["name"])
    samples = take_samples(source, task, PICTURES, options.work / "pictures", options.seed)
    pictures = [sample.path for sample in samples]
    async with Stage(options.bundle, options.work / "runs", task.name, pictures) as stage:
        await stage.play(measuring.warm_up(options.devices))
        played = []
        for traffic in (*measuring.runs(bundle, settings, options.devices, options.fps, options.seconds), checked):
            played.append(await stage.play(traffic))
            on_done(played[-1])
    found = measuring.read_out(stage, bundle, task.name, played[:-1])
    return found, replay.compare(played[-1:], found, bundle, pictures)


def run(options: Options, out: Path, report: Path | None) -> None:
    """Do it and print it; what the command runs."""
    console = Console()
    console.print(f"{options.devices} devices, a server and the links between them share this machine's processor")

    def show(played: Played) -> None:
        console.print(f"ran: {played.traffic.name}, {len(played.records)} frames", markup=False, highlight=False)

    found, compared = on_time(calibrate(options, show))
    found.save(out)
    console.print(distributions(compared), beside(compared))
    console.print(f"calibration: {out}", markup=False, highlight=False, soft_wrap=True)
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        lead = f"Calibrated on {found.machine}, {found.made}, bundle {found.bundle}."
        report.write_text(write_html([compared], lead, "Real devices and their twin"), encoding="utf-8")
        console.print(f"report: {report}", markup=False, highlight=False, soft_wrap=True)
