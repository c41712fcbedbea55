"""What federated rounds bring and cost, beside Flower's FedAvg with dense float32 arrays on the same pictures.

    python -m benchmarks.federated                          # the study's claims as committed; a small fleet now
    python -m benchmarks.federated --full --seeds 0         # the study: solar cells, 16 devices, an hour a seed
    python -m benchmarks.federated --full --show            # the claims of what is done so far
    python -m benchmarks.federated --full --validation ...  # where settings were chosen: no test picture is looked at

A seed is a split of the data: of the test pictures, of those that the first bundle is made of, and of what each device
has. Pieces leave a JSON each in ``out/federated`` and are skipped when that or the committed results
(``benchmarks/results/federated.json``) have them, so that a study may be stopped and go on. Every contest of a split
begins with the same bundle and trains on the devices in the same way; they differ in what travels, who takes part and
how it is put together. Where that bundle is not here and turns out another when it is trained again, as it does on
another processor, all contests of the split are run again. Pictures of solar cells have 64x64 pixels in the study, so
that three splits are hours of a core.
Accuracies are of the widest head on pictures that nobody learns from, the mean of the last three rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress

from benchmarks import claims
from benchmarks.fleet.stated import Statement, whence
from benchmarks.study.records import write_json
from benchmarks.study.runner import run as run_pieces

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.claims import Claim
    from benchmarks.fleet.contests import Study

TIMED = False
SECONDS = 75
RESULTS = Path(__file__).parent / "results" / "federated.json"
OUT = Path("out/federated")
SEEDS = (0, 1, 2)
VALIDATION_SHARE = 0.3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is not done, and report."""
    parser = argparse.ArgumentParser(add_help=False)
    add = parser.add_argument
    add("--full", action="store_true", help="the study: what is not done yet, of all pieces or those chosen")
    add("--show", action="store_true", help="run nothing; what is done so far")
    add("--validation", action="store_true", help="of the study: on a share of what is learnt from")
    add("--seeds", default="0,1,2")
    add("--pieces", default="", help="of the study: those of these names")
    own, rest = parser.parse_known_args(arguments)
    options = claims.options(__doc__, rest)
    if own.full:
        return _full(own, options)
    now = small_fleet()
    return claims.report("Federated rounds", [*committed(RESULTS), *now], options)


# ---------------------------------------------------------------- the study


def _full(own: argparse.Namespace, options: claims.Options) -> int:
    """Run pieces; write what is done to the results file, and state the claims."""
    from benchmarks.fleet.contests import Study
    from benchmarks.fleet.ground import SOLAR_FLEET

    study = Study(SOLAR_FLEET, OUT / "solar", results(RESULTS))
    if own.validation:
        study = Study(replace(SOLAR_FLEET, validation_share=VALIDATION_SHARE), OUT / "solar-validation")
    seeds = [int(seed) for seed in own.seeds.split(",")]
    left = 0 if own.show else run(study, seeds, own.pieces.split(",") if own.pieces else [])
    records = study.records(sorted({*SEEDS, *seeds}))
    if not own.validation:
        write_json(RESULTS, {"about": "python -m benchmarks.federated --full", "pieces": records})
    claims.report("Federated rounds, the study", stated(records, study.terrain.where), options)
    return 1 if left else 0


def run(study: Study, seeds: Sequence[int], wanted: Sequence[str]) -> int:
    """Do what is not done, a split after the other; how many pieces are left."""
    console = Console()
    known = [piece for seed in seeds for piece in study.pieces(seed)]
    pieces = [piece for piece in known if not wanted or piece.name in wanted]
    with Progress(console=console, disable=not console.is_terminal) as progress:
        run_pieces(pieces, study, console, progress, known)
        # A first bundle that was made for one of them may be another than the one that others were done with elsewhere.
        return len(run_pieces(pieces, study, console, progress, known))


def stated(records: Sequence[dict[str, Any]], where: str, made: str = "") -> list[Claim]:
    """The claims of finished pieces."""
    from benchmarks.fleet.contests import HOSTILE, PARTS, START, curve_of

    curves = {(each["piece"], each["seed"]): curve_of(each) for each in records if each["piece"] != START}
    return Statement(curves, where, made).all(HOSTILE, tuple(PARTS))


def committed(path: Path) -> list[Claim]:
    """The claims of the results file; none where there is no such file."""
    from benchmarks.fleet.ground import SOLAR_FLEET

    records = results(path)
    return stated(records, SOLAR_FLEET.where, whence(records)) if records else []


def results(path: Path) -> list[dict[str, Any]]:
    """The records of a results file; none where there is no such file."""
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["pieces"] if path.exists() else []
    return found


# ---------------------------------------------------------------- now


def small_fleet() -> list[Claim]:
    """Two rounds of three devices: that all of it runs; the figures say little."""
    from benchmarks.fleet.contests import OURS, PEER, START, Study, curve_of
    from benchmarks.fleet.ground import DIGITS_FLEET

    with tempfile.TemporaryDirectory() as folder:
        study = Study(DIGITS_FLEET, Path(folder))
        left = run(study, [0], [START, PEER, OURS])
        assert not left, "pieces of the study do not run"
        curves = {(each["piece"], 0): curve_of(each) for each in study.records([0]) if each["piece"] != START}
    return Statement(curves, DIGITS_FLEET.where).savings()


if __name__ == "__main__":
    sys.exit(main())
