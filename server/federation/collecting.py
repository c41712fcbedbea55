"""Pushing messages and waiting for replies, on any grid; replies are in the journal before others are looked for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from headwater.protos.flower import is_expired, pack
from headwater.server.federation.entries import Reply, Task
from headwater.server.federation.journal import Journal

if TYPE_CHECKING:
    from flwr.app import Message
    from flwr.serverapp import Grid

LOOK_S = 0.2
"""How often a grid is asked that cannot say by itself when something came."""

_log = logging.getLogger(__name__)


class Collector:
    """Waits for the replies of a run."""

    def __init__(self, grid: Grid, journal: Journal, run: int) -> None:
        """Nothing is pushed yet."""
        self._grid, self._journal, self._run = grid, journal, run

    def collect(self, number: int, kind: str, messages: Sequence[Message], enough: Callable[[int], bool]) -> None:
        """Push, and pull until all have answered or `enough` of the number of replies says so.

        Replies go to the journal as they come, and are not kept here: a thousand of them are many bytes.
        """
        if not messages:
            return
        tasks = self._journal.tasks(self._run, number, kind, "sent")
        count = len(self._journal.tasks(self._run, number, kind, "answered"))
        waiting = set(self._grid.push_messages(messages))
        while waiting and not enough(count):
            count += len(self.pull(tasks, waiting))
        self._withdraw(waiting)

    def _withdraw(self, waiting: set[str]) -> None:
        """Spare devices that have not begun the work of a round that is over, where the grid can tell them."""
        withdraw: Callable[[set[str], str], None] | None = getattr(self._grid, "withdraw", None)
        if waiting and withdraw is not None:
            withdraw(waiting, "the round is over")

    def pull(self, tasks: Sequence[Task], waiting: set[str]) -> list[Message]:
        """Take the replies to some messages, by their ids, and those ids away; without any, wait a moment."""
        pulled = list(self._grid.pull_messages(sorted(waiting)))
        waiting -= {reply.metadata.reply_to_message_id for reply in pulled}
        came = [reply for reply in pulled if not is_expired(reply)]
        keep(self._journal, self._run, tasks, came)
        if not pulled:
            pause(self._grid)
        return came


def keep(journal: Journal, run: int, tasks: Sequence[Task], replies: Iterable[Message]) -> None:
    """Write replies down, all together; each belongs to the task of its device and round."""
    known = {(str(task.round), task.node): task for task in tasks}
    found = [(known.get((reply.metadata.group_id, reply.metadata.src_node_id)), pack(reply)) for reply in replies]
    if kept := [Reply(task, parcel.envelope, parcel.content) for task, parcel in found if task is not None]:
        journal.answered(run, kept)


def pause(grid: Grid) -> None:
    """Until something may have come: as the grid says, or for a moment."""
    wait: Callable[[float], Any] | None = getattr(grid, "wait", None)
    if wait is not None:
        wait(LOOK_S)
    else:
        time.sleep(LOOK_S)


def names_of(grid: Grid, least: int) -> dict[int, str]:
    """The devices that are there, by node id; waits until there are so many, and says so."""
    told = -1
    while len(nodes := {info.node_id: info.name for info in grid.get_nodes()}) < least:
        if len(nodes) != told:
            told = len(nodes)
            _log.warning("waiting for devices: %d of at least %d are connected with --train-data", told, least)
        pause(grid)
    return {node: name or f"node {node:016x}" for node, name in nodes.items()}
