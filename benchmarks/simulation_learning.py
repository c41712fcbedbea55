"""Learning of virtual devices: a round beside Flower's own quick-start, the driver's memory, and that results repeat.

    python -m benchmarks.simulation_learning           # 100 devices a round, 10,000 in all; needs [simulate]
    python -m benchmarks.simulation_learning --full    # 1,000 devices a round
    python -m benchmarks.simulation_learning --quick   # tens

Both sides simulate the same devices with the same model and the same images, all of them in every round, on the same
actors' cores, one after the other. Flower's side is its quick-start: a stock ClientApp with plain SGD at the widest
width, FedAvg, and its engine. Ours trains every width, distils, codes its update and keeps what a device knows on disk.
A round's time is the median of those after the first, which loads the app (so it asks a tenth of Flower's devices) and
in which none of ours knows anything yet; our last one includes the report. Both sides work on one device after the
other, so that a round's time is that of a device times their number, and what a round costs beside weighs most with few
of them: with 200, two rounds of either side differed by 2 %.

Memory is the peak of the driver's process, with the same number of devices asked in a round; first of few devices, then
of many in the same process with the same actors, so that whatever the first leaves behind counts as growth.
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
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks import claims

if TYPE_CHECKING:
    from headwater.simulations.learning.run import MakeCrew, Question

NAME = "simulation_learning"
ROOT = Path(__file__).parent.parent
MB = 1e6


@dataclass(frozen=True)
class Size:
    """How much is simulated."""

    devices: int = 100
    rounds: int = 2
    few: int = 100
    many: int = 10_000
    asked: int = 10
    images: int = 8


FULL = Size(devices=1000, rounds=3)
QUICK = Size(devices=12, rounds=2, few=10, many=200, asked=4)


def ours(bundle: Path, size: Size, out: Path) -> None:
    """All of our simulations in this process, with the same actors; what they took goes to `out`."""
    from headwater.simulations.learning.crew import Actors, Alone

    class Lasting(Actors):
        """For one simulation after the other."""

        def close(self) -> None:
            """They are needed again."""

    actors = Lasting(bundle.read_bytes())
    found: dict[str, Any] = {}
    for name, devices, asked, rounds in (
        ("few", size.few, size.asked, 2),
        ("many", size.many, size.asked, 2),
        ("own", size.devices, size.devices, size.rounds),
    ):
        question = _question(bundle, devices, asked, rounds, size.images)
        found[name] = _simulated(question, out.with_suffix(f".{name}"), lambda _: actors, asked)
    Actors.close(actors)
    question = _question(bundle, size.few, size.asked, 2, size.images)
    found["alone"] = _simulated(question, out.with_suffix(".alone"), Alone, size.asked)
    out.write_text(json.dumps(found), encoding="utf-8")


def _question(bundle: Path, devices: int, asked: int, rounds: int, images: int) -> Question:
    from headwater.server.federation.settings import RoundSettings
    from headwater.simulations.learning.run import Question
    from headwater.simulations.learning.settings import LearningSettings

    told = RoundSettings(rounds=rounds, share=asked / devices, deadline_s=1e6)
    return Question("digits", bundle, LearningSettings(devices=devices, images=images), told)


def _simulated(question: Question, folder: Path, make_crew: MakeCrew, asked: int) -> dict[str, Any]:
    """Seconds of each round, the hash of what came out, and the most memory of this process so far."""
    from headwater.simulations.learning.run import simulate

    began: dict[str, float] = {}

    def progress(group: str, _done: int, _out: int) -> None:
        began.setdefault(group, time.perf_counter())

    result = simulate(question, folder, make_crew, progress=progress)
    moments = [*began.values(), time.perf_counter()]
    assert [each["states"] for each in result["rounds"]] == [{"believed": asked}] * question.rounds.rounds
    seconds = [later - earlier for earlier, later in itertools.pairwise(moments)]
    return {"seconds": seconds, "hash": result["hash"], "peak": _peak_bytes()}


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

    bundle = learnable.bundle().save(folder / "digits.zip")
    own = _apart(f"benchmarks.{NAME}", folder / "own.json", "--run", bundle, json.dumps(asdict(size)))
    few, many = own["few"], own["many"]
    assert few["hash"] == own["alone"]["hash"], "actors and one process have to give the same"
    peer = _apart("benchmarks.fleet.quickstart", folder / "peer.json", bundle, size.devices, size.images, size.rounds)
    ratio = median(own["own"]["seconds"][1:]) / median(peer[1:])
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
    if words[:1] == ["--run"]:
        bundle, size, out = words[1:]
        ours(Path(bundle), Size(**json.loads(size)), Path(out))
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
