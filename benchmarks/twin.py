"""Whether the fleet simulator may be believed: real devices and a real server, beside the twin's replay of the same.

    python -m benchmarks.twin                  # 6 runs of real devices, each thrice, beside their replays: 110 seconds
    python -m benchmarks.twin --quick          # 2 runs of seconds: that it works; times mean little
    python -m benchmarks.twin --full           # four times as long: 6 minutes; --repeats 4 for more

A server, devices, each a process with the agent of the package, and between them real sockets through links that follow
traces (simulations/fleet/stage.py). The twin is calibrated in the same run, on a link, with modes and at loads that
none of the runs has, then replays each: the same pictures at the same moments on the same links by the same rule. What
it does not know is how long anything took.

Runs and calibration take turns, so that a machine that gets slower in between does so for both. Each run is made three
times; the median, 95th percentile, misses and bytes that count are those of the middle one, and beside the twin's error
stands how far the farthest real run is from it: no twin can be better than that. All of it shares this machine's
processor; devices are so few that they hardly wait for one another. Run it on one that is otherwise idle.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console

from benchmarks import claims
from headwater.compression.bundle import Bundle
from headwater.device.settings import DeviceSettings
from headwater.simulations.fleet import measuring, replay
from headwater.simulations.fleet.calibrate import PICTURES
from headwater.simulations.fleet.comparing import distributions, errors, write_html
from headwater.simulations.fleet.stage import Stage, on_time
from headwater.simulations.fleet.traffic import Traffic
from headwater.simulations.samples import take_samples
from headwater.simulations.shipped import shipped_bundle
from headwater.simulations.trace import LinkTrace, Trace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.simulations.fleet.calibration import Calibration
    from headwater.simulations.fleet.comparing import Comparison
    from headwater.simulations.fleet.stage import Played

OUT = Path("out/twin")
TIME_PERCENT, MISS_POINTS, BYTES_PERCENT = 10.0, 2.0, 1.0
"""What was promised."""
ERRORS = ("p50_error", "p95_error", "miss_points", "bytes_error", "source_points")
WIDTH = 200
"""Of the tables, where there is no terminal to say."""


class Size(NamedTuple):
    """How much is run."""

    seconds: float
    """Of each run."""
    calibrating_s: float
    """Of each of the two runs that calibrate."""
    repeats: int
    """Of everything, taken in turns."""
    runs: int
    """Of :func:`traffics`, the first so many."""


USUAL = Size(seconds=3, calibrating_s=4, repeats=3, runs=6)
FULL = Size(seconds=12, calibrating_s=12.5, repeats=3, runs=6)
QUICK = Size(seconds=1, calibrating_s=2.5, repeats=1, runs=2)
CALIBRATING_FPS, CALIBRATING_DEVICES = 12.8, 3


def traffics(bundle: Bundle, seconds: float) -> list[Traffic]:
    """Links, modes and numbers of devices that the calibration has not seen.

    Devices begin seven seconds apart in their link's trace, so that a short run has all of its weather.
    """
    narrow = {"width": bundle.manifest.modes[0].width}
    wide = {"width": bundle.manifest.modes[-1].width}
    most = max(mode.gain for mode in bundle.manifest.modes)
    wifi = _link("wifi", 10e6, 10e6, 0.003)
    lte_m = _link("lte-m", [(4, 300e3), (3, 60e3), (5, 150e3)], 300e3, 0.04)
    stairs = _link("stairs", [(3, 100e3), (2, 16e3), (3, 40e3)], 200e3, 0.03)
    gaps = _link("black-outs", [(1.3, 3e5), (0.6, 0)], 3e5, 0.03)

    def run(name: str, link: LinkTrace, devices: int, fps: float, deadline_ms: int | None, **more: object) -> Traffic:
        settings = dict(more)
        exit_ = bool(settings.pop("exit", True))
        return Traffic(name, link, devices, fps, seconds, deadline_ms, settings, exit=exit_, seed=len(name))

    return [
        run("4 on Wi-Fi, 300 ms", wifi, 4, 6, 300),
        run("6 on Wi-Fi, finest", wifi, 6, 4, None, **wide, gain=most),
        run("5 on LTE-M, 600 ms, few bytes", lte_m, 5, 5, 600, objective="bytes", slack=2.0),
        run("6 on NB-IoT, 1000 ms", _link("nb-iot", 30e3, 25e3, 0.1), 6, 3, 1000),
        run("5 on stairs, fine, 140 ms, no exit", stairs, 5, 4, 140, **narrow, gain=most - 1, exit=False),
        run("2 with black-outs, fine, 400 ms", gaps, 2, 8, 400, **wide, gain=most - 1),
    ]


def _link(name: str, up: float | Sequence[tuple[float, float]], down: float, delay_s: float) -> LinkTrace:
    """Of a rate up, or (seconds, rate) in turn; bit/s."""
    trace = Trace.constant(up) if isinstance(up, float) else Trace.steps(up)
    return LinkTrace(name, trace, Trace.constant(down), delay_s, delay_s)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, replay, print every error, state the claims."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.twin", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smallest size: that it works; times mean little")
    parser.add_argument("--json", type=Path, metavar="PATH", help="merge the claims into this file (out/bench.json)")
    parser.add_argument("--full", action="store_true", help="four times as long: six minutes")
    parser.add_argument("--repeats", type=int, help="how often everything is run, in turns")
    parser.add_argument("--out", type=Path, default=OUT, help=f"folder for records, calibration and report ({OUT})")
    own = parser.parse_args(arguments)
    size = QUICK if own.quick else FULL if own.full else USUAL
    size = size._replace(repeats=own.repeats or size.repeats)
    calibration, compared = on_time(measured(size, own.out))
    show(calibration, compared, own.out)
    return claims.report("Twin", claims_of(compared), claims.Options(own.quick, own.json))


async def measured(size: Size, out: Path) -> tuple[Calibration, list[Comparison]]:
    """Calibrate and run in turns, then replay."""
    path = shipped_bundle()
    bundle = Bundle.load(path)
    task = bundle.manifest.tasks[0]
    samples = take_samples(str(bundle.manifest.data["name"]), task, PICTURES, out / "pictures")
    pictures = [sample.path for sample in samples]
    settings = DeviceSettings(tasks=(task.name,), deadline_ms=300)
    plan = measuring.runs(bundle, settings, CALIBRATING_DEVICES, CALIBRATING_FPS, size.calibrating_s)
    wanted = traffics(bundle, size.seconds)[: size.runs]
    calibrating: list[Played] = []
    played: dict[str, list[Played]] = {traffic.name: [] for traffic in wanted}
    async with Stage(path, out / "runs", task.name, pictures) as stage:
        await stage.play(measuring.warm_up(max(traffic.devices for traffic in wanted)))
        for number in range(size.repeats):
            again = [traffic for traffic in plan if traffic.sweep or not number]  # the last moment is measured once
            for traffic in in_turns(again, wanted):
                one = await stage.play(traffic)
                check(one)
                (calibrating if traffic in plan else played[traffic.name]).append(one)
    calibration = measuring.read_out(stage, bundle, task.name, calibrating)
    return calibration, [replay.compare(each, calibration, bundle, pictures) for each in played.values()]


def in_turns(plan: Sequence[Traffic], wanted: Sequence[Traffic]) -> list[Traffic]:
    """Those that calibrate spread evenly among the others, one of them first."""
    every = [(number / len(plan), 0, traffic) for number, traffic in enumerate(plan)]
    every += [(number / len(wanted), 1, traffic) for number, traffic in enumerate(wanted)]
    return [traffic for _, _, traffic in sorted(every, key=lambda entry: entry[:2])]


def check(played: Played) -> None:
    """Every picture has its record: what is compared is all that happened."""
    for device in played.devices:
        names = [record.name for record in device.records]
        assert names == list(map(str, range(played.traffic.frames))), f"{played.traffic.name}: pictures are missing"


def show(calibration: Calibration, compared: Sequence[Comparison], out: Path) -> None:
    """Print both distributions of every run and all errors; leave them as files."""
    console = Console()
    console = console if console.is_terminal else Console(width=WIDTH)
    for one in compared:
        console.print(distributions(one))
    console.print(errors(compared, "Real devices and their twin"))
    calibration.save(out / "calibration.toml")
    lead = f"Calibrated in the same run on {calibration.machine}, {calibration.made}."
    (out / "report.html").write_text(write_html(compared, lead, "Real devices and their twin"), encoding="utf-8")
    rows = [
        {
            "run": one.name,
            "frames": one.real.frames,
            **{of: getattr(one, of) for of in ERRORS},
            "of_a_real_run": {of: one.of_a_real_run(of) for of in ERRORS},
        }
        for one in compared
    ]
    (out / "errors.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    console.print(f"wrote {out / 'calibration.toml'}, report.html and errors.json beside it", markup=False)


def claims_of(compared: Sequence[Comparison]) -> list[claims.Claim]:
    """The worst run of each kind of error, beside the worst of a real run among others of the same."""

    def claim(what: str, of: str, unit: str, target: float) -> claims.Claim:
        factor = 100.0 if unit == "%" else 1.0
        worst = max(abs(getattr(one, of)) for one in compared) * factor
        floor = max(abs(one.of_a_real_run(of)) for one in compared) * factor
        peer = f"real devices, worst of {len(compared)} runs; a real run among its like: {floor:.2g} {unit}"
        return claims.at_most("twin", f"error of {what}", worst, unit=unit, target=target, peer=peer)

    return [
        claim("the median answer time", "p50_error", "%", TIME_PERCENT),
        claim("the 95th percentile", "p95_error", "%", TIME_PERCENT),
        claim("the misses", "miss_points", "points", MISS_POINTS),
        claim("the bytes on the wire", "bytes_error", "%", BYTES_PERCENT),
        claims.at_least("twin", "runs held against", len(compared), unit="runs", target=6, peer="real devices"),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
