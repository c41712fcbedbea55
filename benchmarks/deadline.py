"""Whether frames are answered by their deadline, whatever the link does, beside those who plan on means.

    python -m benchmarks.deadline                     # ours on every generated link, the others on four: 2 minutes
    python -m benchmarks.deadline --traces DIR        # and on recordings, at 1, 1/20 and 1/100 of their rate
    python -m benchmarks.deadline --full --seeds 0,1  # everybody on every link, a minute each: hours

A device process with the agent of the package, a server process, and between them real sockets through a link that
follows a trace (simulations/link.py). Frames are test pictures at a frame rate that does not wait for anybody. Each
frame's answer is judged by when it was there and by whether it is right, beside what an oracle that knows the link's
future would have done with the same frames (deadlines/oracle.py). The contenders are the same agent with another
controller and no local exit, and JPEG to a server that runs the whole model (deadlines/peers.py, deadlines/jpeg.py);
they give a frame up at its deadline. The device stands for a weak one: the whole model on it is a row of its own.
Beside ours without an exit stands, reckoned, one who knows the present rate of the link but not its future
(deadlines/present.py): what of the oracle's answers can be had without knowing what comes.

Several devices run side by side, ``--jobs``, each on a link of its own, five frames a second. That they do not disturb
one another is checked in the run: it prints how much longer the head took than on a device alone. Fourteen on two
idle cores keep those less than a third busy. Run it on a machine that is otherwise idle.

Beside the table: tenfold drops of the rate, a busy processor, and servers that are killed. Everything that was measured
is written to ``out/deadline``, with a plot of each link where ``--plots`` asks for it or ``--full`` is given.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.progress import Progress

from benchmarks import claims
from benchmarks.deadlines import kills, plots, stress, tally, times, verdicts
from benchmarks.deadlines.links import generated, recorded
from benchmarks.deadlines.oracle import Oracle
from benchmarks.deadlines.pictures import Pictures
from benchmarks.deadlines.plan import FULL, JPEGS, OURS, PRESENT, QUICK, SERVER, USUAL, WHOLE, contenders, entries
from benchmarks.deadlines.present import Present
from benchmarks.deadlines.rig import Rig
from headwater.compression.bundle import Bundle
from headwater.compression.errors import SettingsError
from headwater.simulations.shipped import shipped_bundle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.claims import Claim
    from benchmarks.deadlines.plan import Entry, Size
    from benchmarks.deadlines.rig import Ran
    from benchmarks.deadlines.tally import Outcome
    from benchmarks.deadlines.times import Times

OUT = Path("out/deadline")
JOBS_A_CORE = 7
WIDTH = 150
"""Of the tables, where there is no terminal to say."""
DISTURBED = 1.3, 3.0
"""Of its time alone that a head takes, in the median and in the slowest 5 %: beyond this the figures say little."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, state the claims."""
    own = _parser().parse_args(arguments)
    bench = Bench(own)
    found = asyncio.run(bench.run())
    return claims.report(f"Deadlines, {bench.bundle.manifest.name}", found, claims.Options(own.quick, own.json))


def _parser() -> argparse.ArgumentParser:
    about = (__doc__ or "").split("\n", maxsplit=1)[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deadline", description=about)
    add = parser.add_argument
    add("--quick", action="store_true", help="seconds, on two links: that it runs; figures mean little")
    add("--full", action="store_true", help="everybody on every link at every deadline, a minute each")
    add("--json", type=Path, metavar="PATH", help="merge the claims into this file (out/bench.json)")
    add("--traces", type=Path, metavar="DIR", help="recordings NAME.up and NAME.down in Mahimahi's format")
    add("--seconds", type=float, help="of each run")
    add("--seeds", type=lambda text: [int(word) for word in text.split(",")], default=[0], help="of the links: 0,1")
    add("--links", type=lambda text: text.split(","), default=[], help="only those whose names begin so: nb-iot,drop")
    add("--jobs", type=int, default=JOBS_A_CORE * len(os.sched_getaffinity(0)), help="devices side by side")
    add("--bundle", type=Path, default=None, help="the model (the shipped one)")
    add("--source", help="data set whose test pictures are sent (the bundle's own)")
    add("--out", type=Path, default=OUT, help=f"folder for pictures, records, results and plots ({OUT})")
    add("--plots", action="store_true", help="draw every link; --full always does")
    return parser


class Bench:
    """One run of the benchmark."""

    def __init__(self, own: argparse.Namespace) -> None:
        self.own = own
        self.size: Size = QUICK if own.quick else FULL if own.full else USUAL
        self.size = replace(self.size, seconds=own.seconds or self.size.seconds)
        self.path = shipped_bundle() if own.bundle is None else own.bundle
        self.bundle = Bundle.load(self.path)
        source = own.source or str(self.bundle.manifest.data["name"])
        self.pictures = Pictures(self.bundle, source, self.size.pictures, own.out / "pictures")
        every = [*generated(), *(recorded(own.traces) if own.traces is not None else [])]
        self.links = [link for link in every if not own.links or link.name.startswith(tuple(own.links))]
        if not self.links:
            have = ", ".join(link.name for link in every)
            raise SettingsError(f"no link's name begins with {' or '.join(own.links)}; there are {have}")
        console = Console()
        self.console = console if console.is_terminal else Console(width=WIDTH)

    async def run(self) -> list[Claim]:
        """Everything: the table, then drops, stress and kills."""
        task, folder = self.pictures.task.name, self.own.out / "runs"
        async with Rig(self.path, task, folder, self.own.jobs, {quality for _, quality in JPEGS}) as rig:
            alone = await times.measure(rig, self.bundle, self.pictures, self.size.rounds)
            who = contenders(self.bundle, times.options(self.bundle, self.pictures, alone), alone)
            wanted = entries(self.size, who, self.links, self.own.seeds, self.pictures)
            print(f"{len(wanted)} runs of {self.size.seconds:g} s each, {self.own.jobs} at a time")
            with Progress(console=self.console, refresh_per_second=1) as progress:  # the links live in this process
                bar = progress.add_task("runs", total=len(wanted))
                ran = await rig.all([entry.job for entry in wanted], lambda done: progress.advance(bar, done))
            stressed = await stress.run(rig, self.pictures, self.size.stress_s)
            # Nothing is timed any more: what the oracle would have done is reckoned beside the kills.
            killed = kills.run(rig, self.path, self.pictures, self.own.out / "kills", self.size.kills, self.size.pairs)
            survived, outcomes = await asyncio.gather(killed, asyncio.to_thread(self.outcomes, wanted, ran, alone))
        self.show(outcomes)
        self.say_how_disturbed(ran, alone)
        self.write(outcomes, alone)
        dropping = [link.name for link in self.links if link.drops]
        return [
            *verdicts.over_links(outcomes),
            *verdicts.without_exit(outcomes),
            *verdicts.after_drops(outcomes, dropping),
            *verdicts.after_drops(outcomes, dropping, SERVER),
            stress.claim(stressed),
            *kills.claims_of(survived),
        ]

    def outcomes(self, wanted: Sequence[Entry], ran: Sequence[Ran], alone: Times) -> list[Outcome]:
        """What became of each frame, beside the oracle's choice; computed when nothing is timed any more."""
        found, among = [], times.side_by_side(alone, zip((entry.job for entry in wanted), ran, strict=True))
        options = {
            name: times.options(self.bundle, self.pictures, alone, local=name != SERVER, whole=name == WHOLE)
            for name in (OURS, SERVER, WHOLE)
        }
        for entry, one in zip(wanted, ran, strict=True):
            job, name = entry.job, entry.contender.name
            sizes = (dict(enumerate(self.pictures.sizes[number].tolist())) for number in entry.numbers)
            frames = [(job.due_s(at), each) for at, each in enumerate(sizes)]
            chosen = Oracle.choose(
                job.link, options.get(name, options[OURS]), alone.costs, frames, entry.deadline_ms / 1e3
            )
            fates = tally.fates(job, one, chosen, entry.numbers, self.pictures)
            run = entry.link.name, entry.seed, entry.deadline_ms
            found.append(tally.Outcome(name, *run, fates))
            if name == SERVER:
                did = Present.choose(job.link, options[SERVER], alone.costs, frames, run[2] / 1e3, among.scatter)
                due = [due_s for due_s, _ in frames]
                fates = tally.reckoned(due, did, chosen, entry.numbers, self.pictures, run[2] / 1e3)
                found.append(tally.Outcome(PRESENT, *run, fates))
        return found

    def show(self, outcomes: Sequence[Outcome]) -> None:
        """Print the table of all contenders, and ours link by link."""
        shown = {(one.link, one.deadline_ms) for one in outcomes if one.contender != OURS}
        both = [one for one in outcomes if (one.link, one.deadline_ms) in shown]
        for (deadline_ms,), group in tally.grouped(both, "deadline_ms").items():
            links = len({one.link for one in group})
            rows = [tally.row(name, runs) for (name,), runs in tally.grouped(group, "contender").items()]
            self.console.print(tally.table(f"All contenders, {links} links, {deadline_ms} ms; shares in %", rows))
        ours = [one for one in outcomes if one.contender == OURS]
        for (deadline_ms,), group in tally.grouped(ours, "deadline_ms").items():
            rows = [tally.row(name, runs) for (name,), runs in tally.grouped(group, "link").items()]
            self.console.print(tally.table(f"Ours by link, {deadline_ms} ms; shares in %", rows))

    def say_how_disturbed(self, ran: Sequence[Ran], alone: Times) -> None:
        """Print how much longer the head took side by side than alone."""
        records = [record for one in ran for record in one.records.values() if record.head_ms and record.width]
        half, slow = np.percentile([record.head_ms / alone.head_ms[record.width] for record in records], (50, 95))
        disturbed = half > DISTURBED[0] or slow > DISTURBED[1]
        word = "they were disturbed, by others or by one another (fewer --jobs)" if disturbed else "not disturbed"
        print(
            f"{self.own.jobs} devices side by side: the head took {half:.2f} times as long as alone "
            f"(95 %: {slow:.2f}); {word}"
        )

    def write(self, outcomes: Sequence[Outcome], alone: Times) -> None:
        """Leave the table, every frame, and the plots where they are asked for."""
        groups = tally.grouped(outcomes, "link", "deadline_ms", "contender")
        rows = [(link, ms, tally.row(name, runs)) for (link, ms, name), runs in groups.items()]
        made = {"bundle": self.bundle.id.hex(), "seconds": self.size.seconds, "seeds": self.own.seeds}
        made |= {"times": asdict(alone), "runs": [one.to_json() for one in outcomes]}
        made["rows"] = [{"link": link, "deadline_ms": ms, **asdict(one)} for link, ms, one in rows]
        (self.own.out / "table.md").write_text(tally.markdown(rows), encoding="utf-8")
        path = self.own.out / "results.json"
        path.write_text(json.dumps(made), encoding="utf-8")
        print(f"wrote {path}, and table.md beside it")
        if self.own.plots or self.own.full:
            folder = plots.write(outcomes, self.links, self.own.out / "plots")
            print(f"wrote a plot of each link to {folder}")


if __name__ == "__main__":
    sys.exit(main())
