"""What a byte buys: every mode of a bundle beside image codecs and other split networks, on the same photographs.

    python -m benchmarks.rate_accuracy                 # the committed claims of the study; a bundle measured now
    python -m benchmarks.rate_accuracy --full          # the study itself: trains everything over 3 splits, many hours
    python -m benchmarks.rate_accuracy --full --quick  # all pieces of it on a handful of images: that they run
    python -m benchmarks.rate_accuracy --list          # its pieces, what is done, how long each takes
    python -m benchmarks.rate_accuracy --plot docs/rate-accuracy.svg --table

Training takes too long to be repeated in every run, so without ``--full`` the claims come from
``benchmarks/results/rate_accuracy.json``, the committed results of the study; each says so, with date and commit. What
needs no training is measured now, on the bundle that ships: its modes and cuts, its local exit, image codecs read by
its unsplit network, the multiply-adds of its heads; these claims end in "shipped bundle".

The study resumes: each piece leaves a JSON in ``out/rate_accuracy`` and is skipped when that or the results file has it
with the same settings, a piece that was stopped goes on from its last epoch, and several processes may share the work
(``--seeds 1 --threads 1`` in one, ``--seeds 2 --threads 1`` in another). Each writes what it finds beside what the
results file has. To do pieces again that it has, give another: ``--results new.json``. The pieces are in
:mod:`benchmarks.study`; the operating points are fixed in :mod:`benchmarks.study.stated`, and how equal accuracy is
found in :mod:`benchmarks.study.arithmetic`.

Ours are bytes of whole frames, header included; those of codecs leave out what is the same in all files.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import claims
from benchmarks.entropic_student import encoder_macs
from benchmarks.study import image_codecs, local_exit, ours, runner, show
from benchmarks.study.pieces import all_pieces, chosen
from benchmarks.study.plan import CODECS, FULL, TINY
from benchmarks.study.records import write_json
from benchmarks.study.results import Results
from benchmarks.study.stated import NAME, Statement
from benchmarks.study.study import OURS, TEACHER, Study
from headwater.compression import allocator
from headwater.compression.bundle import Bundle
from headwater.compression.datasets import open_dataset, split
from headwater.simulations import codecs
from headwater.simulations.codecs import Setting
from headwater.simulations.shipped import shipped_bundle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

TIMED = False
SECONDS = 65
RESULTS = Path(__file__).parent / "results" / "rate_accuracy.json"
OUT = Path("out/rate_accuracy")
QUICK_IMAGES = 48
EVERY = 2
"""Without training, one of so many held-out images is measured: all benchmarks together are to end within minutes."""
QUICK_PIECES = (TEACHER, OURS, "codec-webp", "tuned-webp-16")
"""Of the study that ``--quick`` runs through on a handful of images; ``--full --quick`` runs all."""
SETTINGS: Mapping[codecs.Name, Mapping[float, Sequence[int]]] = {
    "JPEG": {1.0: (50, 90), 0.5: (90,)},
    "WebP": {1.0: (50, 75, 90), 0.5: (90,)},
    "AVIF": {1.0: (50, 80), 0.5: (80,)},
}
"""Qualities by share of the network's side, fewer than in the study, for the same reason: those that are read about as
well as ours, and the finest at half the side. What is coarser is read wrongly one time in three or more."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for; the status is not 0 only where a piece could not be finished."""
    own = _parser().parse_args(arguments)
    options = claims.Options(own.quick, own.json)
    torch.set_num_threads(own.threads)
    allocator.keep_all()
    if options.quick:
        study = Study(TINY, Path(f"{own.out}-quick"), own.threads)
    else:
        study = Study(FULL, own.out, own.threads, Results.load(own.results).records if own.results.exists() else ())
    try:
        pieces = chosen(study.plan, own.pieces, own.seeds)
    except ValueError as error:
        _parser().error(str(error))
    if own.list:
        Console().print(show.listing(pieces, study))
        return 0
    if own.plot or own.table:
        return _show(own)
    if own.full:
        return _full(study, pieces, own, options)
    return _report(own, options)


def _parser() -> argparse.ArgumentParser:
    about = (__doc__ or "").split("\n", maxsplit=1)[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rate_accuracy", description=about)
    add = parser.add_argument
    add("--quick", action="store_true", help="a handful of images: that it runs; figures mean little")
    add("--json", type=Path, metavar="PATH", help="merge the claims into this file (out/bench.json)")
    add("--full", action="store_true", help="run the study: what is not done yet, of all pieces or those chosen")
    add("--list", action="store_true", help="list the pieces, what is done, and how long each takes")
    add("--pieces", type=lambda text: text.split(","), default=[], help="those whose names begin so: ours,tuned-webp")
    add("--seeds", type=lambda text: [int(word) for word in text.split(",")], default=[], help="splits: 0,1,2")
    add("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of the arithmetic (default: all cores)")
    add("--out", type=Path, default=OUT, help=f"folder of the study's checkpoints and pieces ({OUT})")
    add("--results", type=Path, default=RESULTS, help="the results file, read or written")
    add("--plot", type=Path, metavar="SVG", help="draw the results file's plot there")
    add("--table", action="store_true", help="print the results file as Markdown")
    add("--bundle", type=Path, default=None, help="the bundle that is measured now (the shipped one)")
    return parser


# ---------------------------------------------------------------- the study


def _full(study: Study, pieces: Sequence[runner.Piece], own: argparse.Namespace, options: claims.Options) -> int:
    """Run pieces; when all of the plan are done, write the results and state the claims."""
    console = Console()
    with Progress(console=console) as progress:
        left = runner.run(pieces, study, console, progress, all_pieces(study.plan))
    records = gathered(study)
    everything = all_pieces(study.plan)
    done = [piece for piece in everything if runner.state(piece, study) == "done"]
    print(f"{len(done)} of {len(everything)} pieces are done, in {study.folder} or in {own.results}")
    if records.seeds:
        path = study.folder / "results.json" if options.quick else own.results
        write_json(path, records.to_json())
        print(f"wrote {path}")
        claims.report(
            "Rate and accuracy, the study", Statement(records, _whence(records), plan=study.plan).all(), options
        )
    return 1 if left else 0


def gathered(study: Study) -> Results:
    """What is done and current, of the plan's pieces and of those made by name."""
    pieces = {(piece.name, piece.seed): piece for piece in all_pieces(study.plan)}
    records = []
    here = {(path.stem, int(path.parent.name.removeprefix("seed"))) for path in study.folder.glob("seed*/*.json")}
    for name, seed in sorted(here | set(study.elsewhere)):
        extra = {piece.seed: piece for piece in image_codecs.named(study.plan, name)}
        piece = pieces.get((name, seed)) or extra.get(seed)
        if piece is not None and runner.state(piece, study) == "done":
            records.append(study.record(name, seed))
    return Results(tuple(record for record in records if record))


def _whence(results: Results) -> str:
    ours = [record for record in results.records if record["piece"] == OURS]
    commits = sorted({record["commit"] for record in ours})
    return f"study of {max(record['date'] for record in results.records)}, recipe of commit {', '.join(commits)}"


def _show(own: argparse.Namespace) -> int:
    if not own.results.exists():
        print(f"there is no {own.results}; run python -m benchmarks.rate_accuracy --full")
        return 1
    results = Results.load(own.results)
    if own.plot:
        own.plot.parent.mkdir(parents=True, exist_ok=True)
        own.plot.write_text(show.plot(results), encoding="utf-8")
    if own.table:
        print(show.markdown(results, Statement(results, _whence(results)).all()))
    return 0


# ---------------------------------------------------------------- without training


def _report(own: argparse.Namespace, options: claims.Options) -> int:
    """State the committed claims, then what can be measured now."""
    stated = committed(own.results)
    if options.quick:
        _try_pieces(own.threads)
    bundle = Bundle.load(shipped_bundle() if own.bundle is None else own.bundle)
    results = measured_now(bundle, QUICK_IMAGES if options.quick else None, own.threads, quick=options.quick)
    Console().print(_modes_table(results))
    now = Statement(results, "half of one split, measured now", ", shipped bundle").all()
    stated += [claim for claim in now if claim.value is not None]
    return claims.report("Rate and accuracy", stated, options)


def committed(path: Path) -> list[claims.Claim]:
    """The claims of the results file."""
    if not path.exists():
        reason = f"there is no {path.name} yet: run python -m benchmarks.rate_accuracy --full"
        what = "bytes of the best image codec over ours, 3 splits"
        return [claims.at_least(NAME, what, None, unit="x", target=30, peer=reason)]
    results = Results.load(path)
    return Statement(results, f"not measured now, {_whence(results)}").all()


def _try_pieces(threads: int) -> None:
    """Run some pieces of the study on a handful of images, in a folder that is thrown away; raises if one fails."""
    if not QUICK_PIECES:
        return
    with tempfile.TemporaryDirectory() as folder, Progress() as progress:
        study = Study(TINY, Path(folder), threads)
        left = runner.run(chosen(TINY, QUICK_PIECES, [0]), study, Console(), progress)
    assert not left, f"pieces of the study do not run: {', '.join(map(str, left))}"


def measured_now(bundle: Bundle, most: int | None, threads: int, *, quick: bool) -> Results:
    """Modes of a bundle, one of them cut, codecs read by its unsplit network, the head's cost: as pieces of a study."""
    images, labels, usual = held_out(bundle, most)
    bench = ours.bench_of(bundle, images)
    made = {"seed": 0, "commit": runner.commit(), "date": datetime.now(UTC).date().isoformat(), "seconds": 0}
    own = ours.measure(bench, labels, usual, cuts=())
    if (half := len(bundle.tables.group_ends) // 2) > 0:
        point, _ = Results(({"piece": OURS, "result": own, **made},)).point()
        own["modes"][point]["cuts"][half - 1] = ours.figures(bench, bundle.manifest.modes[point], half, labels)
    found: dict[str, dict[str, Any]] = {OURS: own, "exit": local_exit.measure(bench, labels)}
    with Progress() as progress:
        for codec in CODECS:
            settings = _grid(bundle, codec, quick=quick)
            rows = image_codecs.untouched(bundle, images, labels, settings, threads, progress)
            found[f"codec-{codec.lower()}"] = rows
    spec = bundle.manifest.input
    macs = encoder_macs(spec.channels, spec.height)
    found["entropic-macs"] = {"encoder_macs": macs.convolutions, "encoder_norm_macs": macs.normalisation}
    return Results(tuple({"piece": name, "result": result, **made} for name, result in found.items()))


def _grid(bundle: Bundle, codec: codecs.Name, *, quick: bool) -> list[Setting]:
    full = bundle.manifest.input.height
    sides = {round(full * scale): qualities[:1] if quick else qualities for scale, qualities in SETTINGS[codec].items()}
    return [Setting(codec, side, side, quality) for side, qualities in sides.items() for quality in qualities]


def held_out(bundle: Bundle, most: int | None) -> tuple[NDArray[np.uint8], NDArray[np.int64], int]:
    """Images [N, C, H, W] that the bundle did not learn from, labels [N] of its first task, its most frequent class.

    One image of :data:`EVERY`, evenly over the data set; `most` at most.
    """
    recipe, data = bundle.manifest.recipe, bundle.manifest.data
    train, test = split(open_dataset(data["name"]), recipe["test_share"], recipe["seed"])
    task = bundle.manifest.tasks[0].name
    items = test.items[::EVERY][:most]
    images = np.stack([bundle.manifest.input.apply(item.load()) for item in items])
    return images, test.labels(task)[::EVERY][:most], int(np.bincount(train.labels(task)).argmax())


def _modes_table(results: Results) -> Table:
    table = Table(title="Modes of the shipped bundle", title_justify="left")
    for column in ("mode", "bytes", "accuracy", "std. error"):
        table.add_column(column, justify="right")
    for mode in results.modes(results.seeds):
        error = codecs.standard_error(mode.accuracy, len(mode.correct[0]))
        table.add_row(mode.label, f"{mode.size:.1f}", f"{mode.accuracy:.1%}", f"{error:.1%}")
    return table


if __name__ == "__main__":
    sys.exit(main())
