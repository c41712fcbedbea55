"""Learning of virtual devices: a round beside Flower's own quick-start, the driver's memory, and that results repeat.

    python -m benchmarks.simulation_learning           # 200 devices a round, 10,000 in all; needs [simulate]
    python -m benchmarks.simulation_learning --full    # 1,000 devices a round
    python -m benchmarks.simulation_learning --quick   # tens

Both sides simulate the same devices with the same model and the same images, all of them in every round, on the same
actors' cores, one after the other. Flower's side is its quick-start: a stock ClientApp with plain SGD at the widest
width, FedAvg, and its engine. Ours trains every width, distils, codes its update and keeps what a device knows on disk.
A round's time is the median of those after the first, which loads the app.

Memory is the peak of the driver's process, with the same number of devices asked in a round.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import claims

NAME = "simulation_learning"
ROOT = Path(__file__).parent.parent
MB = 1e6


@dataclass(frozen=True)
class Size:
    """How much is simulated."""

    devices: int = 200
    rounds: int = 2
    few: int = 100
    many: int = 10_000
    asked: int = 20
    images: int = 8


FULL = Size(devices=1000, rounds=3)
QUICK = Size(devices=12, rounds=2, few=10, many=200, asked=4)


def ours(bundle: Path, devices: int, asked: int, rounds: int, images: int, out: Path, *, alone: bool = False) -> None:
    """One simulation in this process; what it took goes to `out`."""
    from headwater.server.federation.settings import RoundSettings
    from headwater.simulations.learning.crew import Actors, Alone
    from headwater.simulations.learning.run import Question, simulate
    from headwater.simulations.learning.settings import LearningSettings

    began: dict[str, float] = {}
    told = RoundSettings(rounds=rounds, share=asked / devices, deadline_s=1e6)
    question = Question("digits", bundle, LearningSettings(devices=devices, images=images), told)

    def progress(group: str, _done: int, _out: int) -> None:
        began.setdefault(group, time.perf_counter())

    result = simulate(question, out.with_suffix(".d"), Alone if alone else Actors, anew=True, progress=progress)
    moments = [*began.values(), time.perf_counter()]
    assert [each["states"] for each in result["rounds"]] == [{"believed": asked}] * rounds
    found = {
        "seconds": [later - earlier for earlier, later in itertools.pairwise(moments)],
        "hash": result["hash"],
        "peak": _peak_bytes(),
    }
    out.write_text(json.dumps(found), encoding="utf-8")


def _peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


def _apart(module: str, out: Path, *words: object) -> Any:  # noqa: ANN401 - JSON
    """Run a module in a process of its own; what it wrote."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-m", module, *map(str, words), str(out)]
    done = subprocess.run(command, cwd=ROOT, env=env, check=False, capture_output=True, text=True)
    assert out.exists(), f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
    return json.loads(out.read_text(encoding="utf-8"))


def measured(size: Size, folder: Path) -> list[claims.Claim]:
    """All claims."""
    import flwr

    from tests import learnable

    bundle, me = learnable.bundle().save(folder / "digits"), f"benchmarks.{NAME}"

    def run(name: str, devices: int, asked: int, rounds: int) -> Any:  # noqa: ANN401 - JSON
        return _apart(me, folder / f"{name}.json", "--run", bundle, devices, asked, rounds, size.images)

    few = run("few", size.few, size.asked, 2)
    alone = _apart(me, folder / "alone.json", "--alone", bundle, size.few, size.asked, 2, size.images)
    assert few["hash"] == alone["hash"], "actors and one process have to give the same"
    many = run("many", size.many, size.asked, 2)
    own = run("own", size.devices, size.devices, size.rounds)
    peer = _apart("benchmarks.fleet.quickstart", folder / "peer.json", bundle, size.devices, size.images, size.rounds)
    ratio = median(own["seconds"][1:]) / median(peer[1:])
    flower = f"FedAvg, stock ClientApp, flwr {flwr.__version__}: {median(peer[1:]):.1f} s"
    return [
        claims.at_most(
            NAME, f"a round of {size.devices:,} virtual devices", ratio, unit="x of the time", target=1.0, peer=flower
        ),
        claims.at_most(
            NAME,
            f"memory of the driver, {size.few:,} to {size.many:,} devices",
            (many["peak"] - few["peak"]) / MB,
            unit="MB more",
            target=100,
            peer=f"{few['peak'] / MB:.0f} MB with {size.few:,}",
        ),
        claims.at_least(
            NAME,
            "results that repeat: actors, one process",
            2.0,
            unit="of 2",
            target=2,
            peer=f"hash {few['hash'][:12]}",
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or say why not."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] in (["--run"], ["--alone"]):
        bundle, devices, asked, rounds, images, out = words[1:]
        numbers = int(devices), int(asked), int(rounds), int(images)
        ours(Path(bundle), *numbers, Path(out), alone=words[0] == "--alone")
        return 0
    options = claims.options(__doc__, arguments, full="1,000 devices")
    if importlib.util.find_spec("ray") is None:
        why = "Ray is not installed: pip install 'headwater[simulate]'"
        found = [claims.at_most(NAME, "a round of 1,000 virtual devices", None, unit="x", target=1.0, peer=why)]
        return claims.report("Simulated learning", found, options)
    with tempfile.TemporaryDirectory() as folder:
        found = measured(QUICK if options.quick else FULL if options.full else Size(), Path(folder))
    return claims.report("Simulated learning", found, options)


if __name__ == "__main__":
    sys.exit(main())
