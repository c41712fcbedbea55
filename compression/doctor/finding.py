"""What was looked at, what was found, and what is to be done."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from headwater.compression.errors import HeadwaterError

if TYPE_CHECKING:
    from collections.abc import Iterator

State = Literal["well", "doubtful", "wrong"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    check: str
    """What: clock, permissions, versions, bundle, release, certificate, link, camera, space or throttling."""
    state: State
    found: str
    remedy: str = ""
    """What to do; a line that can be typed where there is one. Empty only where all is well."""

    def __post_init__(self) -> None:
        """Hold that nothing is complained of without a remedy."""
        assert bool(self.remedy) == (self.state != "well"), f"{self.check}: {self.found}"


@dataclass
class Findings:
    """Collects them, one look after the other."""

    all: list[Finding] = field(default_factory=list)

    def well(self, check: str, found: str) -> None:
        """Note that something is as it should be."""
        self.all.append(Finding(check, "well", found))

    def doubtful(self, check: str, found: str, remedy: str) -> None:
        """Note what works, but not for long, or not well."""
        self.all.append(Finding(check, "doubtful", found, remedy))

    def wrong(self, check: str, found: str, remedy: str) -> None:
        """Note what does not work."""
        self.all.append(Finding(check, "wrong", found, remedy))

    @contextmanager
    def looking(self, check: str, remedy: str) -> Iterator[None]:
        """Look at something: a :class:`HeadwaterError` is what is wrong with it."""
        try:
            yield
        except HeadwaterError as error:
            self.wrong(check, str(error), remedy)

    @property
    def state(self) -> State:
        """The worst of them."""
        states = {each.state for each in self.all}
        return "wrong" if "wrong" in states else "doubtful" if "doubtful" in states else "well"
