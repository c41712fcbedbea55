"""Asynchronous rounds: each device trains at its own pace, and every K replies make a version.

FedBuff (Nguyen et al., 2022, arXiv:2106.06639): a reply that is s versions behind counts by 1 / sqrt(1 + s), and a
version is made of a buffer of K replies. FAVANO (Leconte et al., 2023, arXiv:2305.16099): what a device brings is
divided by how many steps are expected of it, since otherwise the network becomes that of the quick ones. Here the
expectation is what the device has in fact contributed so far beside the mean of all, so that it covers both who answers
more often and who trains longer before it does; the factor is held between 1 / `LIMIT` and `LIMIT`.

A device is asked once for each version at most, those that have waited longest first. Which replies share a buffer is
up to the clock, so the bytes that come out are not repeatable; a run that is killed goes on without losing a reply.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from headwater.compression.errors import SettingsError
from headwater.server.federation import closing
from headwater.server.federation.asking import Asker
from headwater.server.federation.collecting import Collector, names_of
from headwater.server.federation.entries import Round, Task
from headwater.server.federation.strategy import FleetStrategy

if TYPE_CHECKING:
    from flwr.app import ConfigRecord, Message
    from flwr.serverapp import Grid
    from flwr.serverapp.strategy import Result

    from headwater.server.federation.averaging import Contribution

LIMIT = 4.0
"""A device that contributes little counts at most so many times, one that contributes much at least one in so many."""


class BufferedStrategy(FleetStrategy):
    """A :class:`FleetStrategy` whose rounds are buffers: one ends when K replies are there, whoever they are from."""

    def _round(
        self,
        grid: Grid,
        number: int,
        timeout: float,
        train_config: ConfigRecord | None,
        evaluate_config: ConfigRecord | None,
        result: Result,
    ) -> None:
        if self.companion.masks() is not None:
            raise SettingsError(
                "masks differ between versions, and asynchronous replies are of several: leave out --async"
            )
        round_ = self.journal.round(self.run.number, number) or self.plan(number, train_config, {})
        if round_.phase != "closed":
            self._fill(grid, round_)
            self.close(number)
        self._after(grid, number, timeout, evaluate_config, result)

    # ------------------------------------------------------------ filling the buffer

    def _fill(self, grid: Grid, round_: Round) -> None:
        """Ask whoever is free, and wait, until the buffer is full."""
        collector = Collector(grid, self.journal, self.run.number)
        waiting = set(grid.push_messages(self._again()))
        while len(self._answered()) < self.settings.buffer:
            self._give_up()
            if messages := self._ask(grid, round_):
                waiting |= set(grid.push_messages(messages))
            collector.pull(self._sent(), waiting)

    def _answered(self) -> list[Task]:
        return self.journal.tasks(self.run.number, kind="train", state="answered")

    def _sent(self) -> list[Task]:
        return self.journal.tasks(self.run.number, kind="train", state="sent")

    def _give_up(self) -> None:
        """Give up those whose lifetime is over."""
        deadline = self.around.clock() - self.settings.lifetime_s
        if any(task.sent < deadline for task in self._sent()):
            self.journal.lost(self.run.number, deadline)

    def _ask(self, grid: Grid, round_: Round) -> list[Message]:
        """Messages to devices that have nothing to do and were not asked for this version yet."""
        run = self.run.number
        busy = {task.node for task in (*self._sent(), *self._answered())}
        asked = {task.node for task in self.journal.tasks(run, round_.number)}
        there = names_of(grid, 1)
        last = {task.node: task.sent for task in self.journal.tasks(run)}
        free = sorted(there.keys() - busy - asked, key=lambda node: (last.get(node, 0.0), node))
        room = (self.settings.at_once or len(there)) - len(self._sent())
        if not free or room < 1:
            return []
        return self.messages(round_, "train", round_.base, {str(node): there[node] for node in free[:room]})

    def _again(self) -> list[Message]:
        """After a kill: the messages that were out, made again, so that the grid finds them."""
        asker = Asker(self.journal, self.settings.lifetime_s)
        rounds = {task.round: self.journal.round(self.run.number, task.round) for task in self._sent()}
        return [asker.message(task, round_) for task in self._sent() if (round_ := rounds[task.round]) is not None]

    @property
    def lifetime_s(self) -> float:
        """Of a message."""
        return self.settings.lifetime_s

    def measurers(self, round_: Round) -> Mapping[str, str]:
        """Who was asked in this round and has answered: the others are at work."""
        tasks = self.journal.tasks(self.run.number, round_.number, state="believed")
        return {str(task.node): task.device for task in tasks}

    # ------------------------------------------------------------ making a version

    @property
    def fewest(self) -> int:
        """A full buffer may lose some to the checks; whoever is left decides."""
        return 1

    def close(self, number: int) -> None:
        """A version from the buffer."""
        rules = self.rules(number)
        judged = closing.judge(self._answered(), rules, self.journal.seen, None)
        judged = [self._fresh(each, number) for each in judged]
        judged = closing.without_outliers(judged, rules.longest, self.usual_length(number))
        self.write(number, balanced(judged, self.journal.work()), rules)

    def _fresh(self, judged: closing.Judged, number: int) -> closing.Judged:
        """Counted by how many versions it is behind; refused beyond the bound."""
        if judged.contribution is None:
            return judged
        behind = number - judged.task.round
        if behind > self.settings.most_stale:
            why = f"stale: it is {behind} versions behind; {self.settings.most_stale} is the bound"
            return replace(judged, refused=why)
        return replace(judged, contribution=replace(judged.contribution, scale=1 / math.sqrt(1 + behind)))


def balanced(judged: Sequence[closing.Judged], work: Mapping[int, float]) -> list[closing.Judged]:
    """Weigh each device by what it has contributed, in steps, beside the mean of all who have contributed anything."""
    total = dict(work)
    for each in judged:
        if each.contribution is not None and not each.refused:
            total[each.task.node] = total.get(each.task.node, 0.0) + steps_of(each.contribution)
    mean = sum(total.values()) / len(total) if total else 1.0
    return [_weighed(each, mean / max(total.get(each.task.node, mean), 1e-9)) for each in judged]


def _weighed(judged: closing.Judged, factor: float) -> closing.Judged:
    if judged.contribution is None:
        return judged
    weight = min(max(factor, 1 / LIMIT), LIMIT)
    return replace(judged, contribution=replace(judged.contribution, examples=judged.contribution.examples * weight))


def steps_of(contribution: Contribution) -> float:
    """Steps that it took; 1 for a device that does not say."""
    return max(1.0, contribution.metrics.get("steps", 1.0))
