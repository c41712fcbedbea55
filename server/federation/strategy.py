"""The strategy of a fleet: Flower's `Strategy`, synchronous, that goes on after a kill at any moment.

A round goes plan -> messages -> replies -> collection -> version -> measurement. Each arrow is a transaction in the
journal, and each step is done again from what the one before has written, so that the bytes that come out do not depend
on when the process was killed, nor on the order in which devices answered. It runs on any grid: ours over the devices'
streams, the one in this process, Flower's own.

    strategy = FleetStrategy(outline, folder, settings)
    strategy.start(grid, ArrayRecord(...))     # inside `acting_as(run)` where Flower has not set who we are
"""

from __future__ import annotations

import math
import random
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from headwater.compression.errors import LearningError, SettingsError
from headwater.compression.learning.arrays import version_of
from headwater.protos.flower import from_record, pack, to_record
from headwater.server.federation import closing
from headwater.server.federation.asking import Asker, round_record
from headwater.server.federation.collecting import Collector, keep, names_of
from headwater.server.federation.companion import Companion, Dense
from headwater.server.federation.entries import Closing, Round, Run, Task
from headwater.server.federation.journal import Journal
from headwater.server.federation.privacy import Privacy, private
from headwater.server.federation.robust import aggregator
from headwater.server.federation.versions import Held, Versions

if TYPE_CHECKING:
    from headwater.server.federation.averaging import Aggregator, Arrays
    from headwater.server.federation.outline import Outline
    from headwater.server.federation.settings import RoundSettings

Measure = Callable[["Arrays"], Mapping[str, float]]
"""What the server finds out about arrays on data of its own: accuracy, loss, ..."""


@dataclass(frozen=True)
class Surroundings:
    """What rounds need from outside, replaceable in tests."""

    bundle: bytes = b""
    """Id of the bundle that the rounds begin from."""
    measure: Measure | None = None
    anew: bool = False
    """Leave an unfinished run, and what other runs have learnt, and begin from the arrays that are given."""
    clock: Callable[[], float] = time.time
    secret: Callable[[int], bytes] = secrets.token_bytes
    """So many bytes that nobody can guess, for a run's noise."""
    at: Callable[[str], None] = field(default=lambda _: None)
    """Called with the name of each step: where tests stop the process."""
    ended: Callable[[int], None] = field(default=lambda _: None)
    """Called with the number of each round when it is in the journal and measured; after a kill, from the last on."""


class FleetStrategy(Strategy):
    """Synchronous rounds with a deadline and over-sampling, over devices of unequal strength."""

    def __init__(
        self,
        outline: Outline,
        folder: Path,
        settings: RoundSettings,
        companion: Companion | None = None,
        around: Surroundings | None = None,
    ) -> None:
        """Open the journal in `folder`; nothing is sent before `start`."""
        self.outline, self.settings, self.around = outline, settings, around or Surroundings()
        self.companion = companion or Dense()
        self.journal = Journal(folder, self.around.clock, self.around.at)
        self.versions = Versions(folder)
        self._run: Run | None = None
        self._line = ""

    # ------------------------------------------------------------ a run

    @property
    def run(self) -> Run:
        """The run that goes on; there is none before `start`, or `configure_train` of the first round."""
        if self._run is None:
            raise LearningError("no run was opened yet; call start")
        return self._run

    def open(self, initial: Arrays) -> Run:
        """Go on with the unfinished run, or begin one: from what was learnt of this bundle, or from `initial`."""
        if self._run is None:
            unfinished = self.journal.unfinished()
            if unfinished and self.around.anew:
                self.journal.end(unfinished.number, "stopped", "another run was begun anew")
                unfinished = None
            self._run = self._resumed(unfinished, initial) if unfinished else self._begun(initial)
            self._line = self.journal.line(self._run.number, version_of(initial))
        return self._run

    def _begun(self, initial: Arrays) -> Run:
        """A new run; its round 0 is written before it is in the journal."""
        known = None if self.around.anew else self.journal.learnt(self.around.bundle)
        held = self.versions.load(*known) if known else Held(version_of(initial), dict(initial), {})
        state = self.journal.companion(known[0]) if known else b""
        self._prepare(held, state)  # what it will not go on from is told before there is a run
        settings, secret = self.settings.to_json(), self.around.secret(32)
        run = Run(self.journal.next_run(), self.around.bundle, held.version, settings, secret)
        self.versions.save(run.number, 0, held)
        self.journal.begin(run, state)
        return run

    def _resumed(self, run: Run, initial: Arrays) -> Run:
        """Check that it is the same run that is meant."""
        now = {**self.settings.to_json(), "rounds": run.settings["rounds"]}
        different = sorted(key for key in now if now[key] != run.settings.get(key))
        if different or run.bundle != self.around.bundle:
            what = ", ".join(f"{key} was {run.settings.get(key)}" for key in different) or "its bundle was another"
            raise SettingsError(f"run {run.number} is not finished, and {what}; give the same again, or --anew")
        self.outline.layout.check(dict(initial))
        self._prepare(self.versions.load(run.number, 0), self.journal.companion(run.number))
        return run

    def _prepare(self, held: Held, state: bytes) -> None:
        """Have the companion know what the run begins with, and where it was."""
        self.companion.begin(held.arrays)
        if state:
            self.companion.load(state)

    def start(  # Flower's signature
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int | None = None,
        timeout: float | None = None,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run the rounds that are left; `num_rounds` and `timeout` default to the settings'."""
        del evaluate_fn  # the settings and `around.measure` say it
        self.open(from_record(initial_arrays))
        result, before = Result(), self.journal.last(self.run.number)
        for number in range(1, (num_rounds or self.settings.rounds) + 1):
            self._round(grid, number, timeout or self.settings.deadline_s, train_config, evaluate_config, result)
            if number >= before:
                self.around.ended(number)
        self.journal.end(self.run.number, "done")
        result.arrays = to_record(self.held(self.journal.last(self.run.number)).result())
        return result

    def _round(
        self,
        grid: Grid,
        number: int,
        timeout: float,
        train_config: ConfigRecord | None,
        evaluate_config: ConfigRecord | None,
        result: Result,
    ) -> None:
        """One round, from wherever it stands."""
        messages = list(self.configure_train(number, ArrayRecord(), train_config or ConfigRecord(), grid))
        self._collector(grid).collect(number, "train", messages, self._enough(number, timeout))
        self.aggregate_train(number, ())
        self._after(grid, number, timeout, evaluate_config, result)
        forget: Callable[[str], None] | None = getattr(grid, "forget", None)
        if forget is not None:  # what was said is in the journal
            forget(str(number))

    def _after(
        self, grid: Grid, number: int, timeout: float, evaluate_config: ConfigRecord | None, result: Result
    ) -> None:
        """Measure what a round has given, on the devices and here."""
        if self.due_evaluation(number):
            messages = list(self.configure_evaluate(number, ArrayRecord(), evaluate_config or ConfigRecord(), grid))
            sent = [task.sent for task in self.journal.tasks(self.run.number, number, "evaluate")]
            over = min(sent, default=0.0) + timeout
            self._collector(grid).collect(number, "evaluate", messages, lambda _: self.around.clock() >= over)
            result.evaluate_metrics_clientapp[number] = self.aggregate_evaluate(number, ()) or MetricRecord()
        self._measure(number)
        round_ = self.journal.round(self.run.number, number)
        assert round_ is not None
        result.train_metrics_clientapp[number] = _metrics(round_.facts)
        result.evaluate_metrics_serverapp[number] = _metrics(round_.facts.get("measured", {}))

    # ------------------------------------------------------------ training

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Plan the round, or find it planned; the messages that have no reply yet. `config` overrides what is asked."""
        if self._run is None:
            self.open(from_record(arrays))
        round_ = self.journal.round(self.run.number, server_round)
        if round_ is None:
            round_ = self.plan(server_round, config, self._choose(grid, server_round))
        if round_.phase != "planned":
            return []
        return self.messages(round_, "train", round_.base, round_.asked["devices"])

    def plan(self, number: int, config: ConfigRecord | None, devices: Mapping[int, str]) -> Round:
        """Write down a new round: what is asked, and of whom."""
        base = self.held(number - 1).version
        record = {**round_record(self.settings, number, base, self._line, self.companion), **(config or {})}
        asked = {"record": record, "devices": {str(node): name for node, name in devices.items()}}
        return self.journal.plan(self.run.number, number, base, asked)

    def _choose(self, grid: Grid, number: int) -> dict[int, str]:
        """Who is asked: the same of those that are there, whatever order the grid has them in."""
        there = names_of(grid, self.settings.least)
        wanted = max(self.settings.least, round(self.settings.share * len(there)))
        count = min(len(there), math.ceil(wanted * self.settings.over))
        chosen = random.Random(f"{self.settings.seed}/{number}").sample(sorted(there), count)  # noqa: S311 - repeatable
        return {node: there[node] for node in sorted(chosen)}

    def messages(self, round_: Round, kind: str, base: str, devices: Mapping[str, str]) -> list[Message]:
        """Write down who is asked, then make the messages of those who have not answered."""
        if not devices:
            return []
        run, now = self.run.number, self.around.clock()
        asker = Asker(self.journal, self.lifetime_s)
        tasks = [Task(round_.number, kind, int(node), name, base, "sent", now) for node, name in devices.items()]
        sizes = _sizes(asker, tasks, round_)
        self.journal.sent(run, tasks, sizes)
        return [asker.message(task, round_) for task in self.journal.tasks(run, round_.number, kind, "sent")]

    @property
    def lifetime_s(self) -> float:
        """Of a message: past the round's end, at which it is withdrawn, so that a kill in between loses no reply."""
        return 2 * self.settings.deadline_s + 60

    def _enough(self, number: int, timeout: float) -> Callable[[int], bool]:
        """Whether a round may go on with so many replies."""
        round_ = self.journal.round(self.run.number, number)
        assert round_ is not None
        wanted = math.ceil(len(round_.asked["devices"]) / self.settings.over)
        return lambda replies: replies >= wanted or self.around.clock() - round_.began >= timeout

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Write down the replies that are not there yet; then close the round with all of them."""
        run, round_ = self.run.number, self.journal.round(self.run.number, server_round)
        assert round_ is not None
        if round_.phase == "planned":
            self.keep(server_round, "train", replies)
            self.journal.collected(run, server_round)
        if round_.phase != "closed":
            self._close(server_round)
        held, closed = self.held(server_round), self.journal.round(run, server_round)
        assert closed is not None
        return to_record(held.exact()), _metrics(closed.facts)

    def _collector(self, grid: Grid) -> Collector:
        return Collector(grid, self.journal, self.run.number)

    def keep(self, number: int, kind: str, replies: Iterable[Message]) -> None:
        """Write down replies."""
        keep(self.journal, self.run.number, self.journal.tasks(self.run.number, number, kind, "sent"), replies)

    def _close(self, number: int) -> None:
        run = self.run.number
        rules = self.rules(number)
        tasks = [task for task in self.journal.tasks(run, number) if task.state == "answered"]
        coded = self.companion.coded(number, self.held(number - 1).arrays)
        judged = closing.judge(tasks, rules, self.journal.seen, coded)
        judged = closing.without_outliers(judged, rules.longest, self.usual_length(number))
        self.write(number, judged, rules)

    def write(self, number: int, judged: Sequence[closing.Judged], rules: closing.Rules) -> None:
        """Aggregate what is believed, and commit the version with everything that goes with it."""
        run, held = self.run.number, self.held(number - 1)
        good = [each.contribution for each in judged if each.contribution is not None and not each.refused]
        if len(good) < self.fewest:
            good = []
        following = closing.close(number, held, good, rules, self.companion)
        if good and self.companion.masks() is None and self.journal.masked(held.version):
            following = following.without_masks()
        self.versions.save(run, number, following.held)
        facts = {"usual_length": self.usual_length(number), **following.facts}
        verdicts = [each.verdict() for each in judged]
        dump = self.companion.dump()
        self.journal.closed(run, number, Closing(held.version, following.step, verdicts, facts, dump))
        self.versions.keep(run, (0, number - 1, number))

    @property
    def fewest(self) -> int:
        """Fewest believed replies that may change anything."""
        return self.settings.least

    def rules(self, number: int) -> closing.Rules:
        """How this round's replies become a version."""
        s = self.settings
        how = self._aggregator(number)
        return closing.Rules(self.outline, how, s.scheme_down, s.width, s.part, s.longest, s.server_rate, s.average)

    def _aggregator(self, number: int) -> Aggregator:
        if self.settings.noise:
            return private(Privacy(self.settings.noise, self.settings.clip), self.run.secret, number)
        return aggregator(self.settings.aggregator, self.settings.hostile)

    def usual_length(self, number: int) -> float:
        """Of updates, in the round before; 0 if it is not known."""
        before = self.journal.round(self.run.number, number - 1)
        return float(before.facts.get("usual_length", 0.0)) if before else 0.0

    def held(self, number: int) -> Held:
        """What a round ended with."""
        return self.versions.load(self.run.number, number)

    # ------------------------------------------------------------ measuring

    def due_evaluation(self, number: int) -> bool:
        """Whether devices measure this round's version."""
        return self.settings.evaluate_every > 0 and number % self.settings.evaluate_every == 0

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the round's devices to measure its version."""
        del arrays, config, grid
        round_ = self.journal.round(self.run.number, server_round)
        if round_ is None or round_.version is None or not self.due_evaluation(server_round):
            return []
        if "evaluated" in round_.facts:
            return []
        return self.messages(round_, MessageType.EVALUATE, round_.version, self.measurers(round_))

    def measurers(self, round_: Round) -> Mapping[str, str]:
        """Who measures a round's version, by node id: all that were asked."""
        devices: Mapping[str, str] = round_.asked["devices"]
        return devices

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """The devices' figures, weighted by their examples."""
        self.keep(server_round, "evaluate", replies)
        run = self.run.number
        tasks = self.journal.tasks(run, server_round, "evaluate", "answered")
        if tasks:
            found, holders = closing.evaluated(tasks)
            self.journal.measured(run, server_round, {"evaluated": found}, holders)
        round_ = self.journal.round(run, server_round)
        return _metrics(round_.facts.get("evaluated", {})) if round_ else None

    def _measure(self, number: int) -> None:
        """By the server, on its own data; once a round."""
        round_ = self.journal.round(self.run.number, number)
        assert round_ is not None
        if self.around.measure is not None and "measured" not in round_.facts:
            found = dict(self.around.measure(self.held(number).result()))
            self.journal.measured(self.run.number, number, {"measured": found})

    def summary(self) -> None:
        """Nothing: `headwater server rounds` shows it all."""


def _sizes(asker: Asker, tasks: Sequence[Task], round_: Round) -> list[int]:
    """Bytes of each message's content, which is packed once for all that get the same."""
    sizes: dict[int, int] = {}
    found = []
    for task in tasks:
        records = asker.records(task, round_)
        if id(records) not in sizes:
            sizes[id(records)] = len(pack(asker.message(task, round_)).content)
        found.append(sizes[id(records)])
    return found


def _metrics(facts: Mapping[str, Any]) -> MetricRecord:
    return MetricRecord({name: value for name, value in facts.items() if isinstance(value, int | float)})
