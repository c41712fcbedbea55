"""How far a simulation is, and how long it will take: a bar on a terminal, a line a round elsewhere."""

from __future__ import annotations

import itertools
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bars

_TAIL = 3
"""Rounds that the time of the next ones is guessed from."""


class Progress:
    """Called with a round and how many of its messages were handed out, of how many."""

    def __init__(self, rounds: int, console: Console | None = None) -> None:
        """Nothing is shown yet."""
        self._rounds, self._console = rounds, console or Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._bars = Bars(*columns, console=self._console, disable=not self._console.is_terminal, transient=True)
        self._task = self._bars.add_task("starting", total=None, left="")
        self._began: list[tuple[int, float]] = []

    def __enter__(self) -> Self:
        """Show it."""
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Show it no more."""
        self._bars.stop()

    def say(self, text: str) -> None:
        """A line of its own."""
        self._console.print(text, highlight=False)

    def __call__(self, group: str, done: int, out: int) -> None:
        """So many of a round's messages are worked on or done."""
        number, now = int(group), time.monotonic()
        if not self._began or self._began[-1][0] != number:
            self._round(number, now)
        left = self.left_s(now, done / max(out, 1))
        about = "" if left is None else f"about {duration(left)} left"
        self._bars.update(
            self._task, description=f"round {number} of {self._rounds}", completed=done, total=out, left=about
        )

    def _round(self, number: int, now: float) -> None:
        """A round begins; where there is no bar, say a word of the one before."""
        self._began.append((number, now))
        if len(self._began) > 1 and not self._console.is_terminal:
            before, began = self._began[-2]
            left = self.left_s(now, 0.0)
            about = "" if left is None else f", about {duration(left)} left"
            self.say(f"round {before} of {self._rounds}: {duration(now - began)}{about}")

    def left_s(self, now: float, share: float) -> float | None:
        """Wall-clock seconds that are left, from the last rounds' times; None before anything is known."""
        if not self._began:
            return None
        number, began = self._began[-1]
        recent = [moment for _, moment in self._began[-_TAIL - 1 :]]
        times = [later - earlier for earlier, later in itertools.pairwise(recent)]
        if not times and share <= 0:
            return None
        each = sum(times) / len(times) if times else (now - began) / share
        return max(0.0, each * (self._rounds - number + 1 - share))


def duration(seconds: float) -> str:
    """Such as 1:05 or 2:00:01."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
