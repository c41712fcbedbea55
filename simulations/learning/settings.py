"""What a simulated fleet is like: who has which images, who is weak, asleep, slow, lost or hostile.

--partition dirichlet:0.5          classes in proportions of each device's own; a small figure is a strong skew
--partition domain:cell_type:0.5   and each device sees one label of another task only; the figure may be left out
--partition folder                 DATA has a folder a device, each with a sub-folder a class
--widths 0.25:0.3,1.0:0.7          three devices in ten have memory for a quarter of the width
--stragglers 0.2:5                 a fifth is five times slower
--hostile 0.1:sign-flip            a tenth lies
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from headwater.compression.errors import SettingsError
from headwater.compression.settings import between

Lie = Literal["sign-flip", "scaled", "noise"]
LIES: tuple[str, ...] = get_args(Lie)
ALPHA = 0.5
MOST_DEVICES = 1_000_000


@dataclass(frozen=True)
class Partition:
    """Who has which images."""

    kind: str
    """dirichlet, domain or folder."""
    task: str = ""
    """Of a domain: the task by whose label devices differ; empty for the only one that is not the bundle's first."""
    alpha: float = ALPHA


@dataclass(frozen=True)
class LearningSettings:
    """A fleet of virtual devices."""

    section: ClassVar[str] = "learning"

    devices: int = 100
    """How many."""
    partition: str = f"dirichlet:{ALPHA}"
    """dirichlet:ALPHA, domain[:TASK[:ALPHA]] or folder."""
    images: int = 0
    """Images that each device draws, which others may have too; 0: the data set is shared out."""
    widths: str = ""
    """WIDTH:SHARE,...: the widest that a share of the devices has memory for; empty: all train all."""
    asleep: float = 0.0
    """Share of the devices that is not connected at a time; another one each `slot_s`."""
    slot_s: float = 600.0
    """How long a device sleeps at least, simulated seconds."""
    availability: Path | None = None
    """A table of when each device is connected, in place of `asleep`: device,from_s,to_s, again from its end."""
    dropout: float = 0.0
    """Chance that a device that is asked never answers."""
    stragglers: str = ""
    """SHARE:FACTOR: so many are so much slower."""
    liars: str = ""
    """SHARE:KIND: so many send sign-flip, scaled or noise in place of what they learnt."""
    step_s: float = 1.0
    """What a step of training takes a device, simulated seconds."""
    seed: int = 0
    """Of all of the above."""

    def __post_init__(self) -> None:
        """Raise :class:`SettingsError` for what is out of range or cannot be read."""
        between("devices", self.devices, 1, MOST_DEVICES)
        between("images", self.images, 0, 1_000_000)
        between("asleep", self.asleep, 0, 0.99)
        between("slot_s", self.slot_s, 1, 31_536_000)
        between("dropout", self.dropout, 0, 0.99)
        between("step_s", self.step_s, 0.001, 1_000_000)
        self.partition_of()
        self.width_shares()
        self.slow()
        self.hostile()

    def partition_of(self) -> Partition:
        """The partition, read."""
        kind, *rest = self.partition.split(":")
        most = {"dirichlet": 1, "domain": 2, "folder": 0}
        if len(rest) > most.get(kind, -1):
            raise SettingsError(
                f"--partition is {self.partition!r}; want dirichlet:ALPHA, domain, domain:TASK, domain:TASK:ALPHA or "
                "folder"
            )
        task = rest.pop(0) if kind == "domain" and rest else ""
        alpha = _number("--partition", self.partition, rest[0]) if rest else ALPHA
        if alpha <= 0:
            raise SettingsError(f"--partition is {self.partition!r}; the skew has to be above 0")
        return Partition(kind, task, alpha)

    def width_shares(self) -> tuple[tuple[float, float], ...]:
        """Widths, ascending, each with its share of the devices; empty where all train all."""
        found = []
        for part in filter(None, self.widths.split(",")):
            width, _, share = part.partition(":")
            found.append((_number("--widths", part, width), _number("--widths", part, share)))
        if found and abs(sum(share for _, share in found) - 1) > 1e-6:
            raise SettingsError(f"--widths is {self.widths!r}; the shares have to add up to 1, as in 0.25:0.3,1.0:0.7")
        if len({width for width, _ in found}) < len(found) or any(share < 0 for _, share in found):
            raise SettingsError(f"--widths is {self.widths!r}; want each width once, and no share below 0")
        return tuple(sorted(found))

    def slow(self) -> tuple[float, float]:
        """The share that is slow, and how many times slower."""
        if not self.stragglers:
            return 0.0, 1.0
        share, _, factor = self.stragglers.partition(":")
        found = _share("--stragglers", self.stragglers, share), _number("--stragglers", self.stragglers, factor)
        if found[1] < 1:
            raise SettingsError(
                f"--stragglers is {self.stragglers!r}; nobody is {found[1]:g} times slower: want 1 or more"
            )
        return found

    def hostile(self) -> tuple[float, str]:
        """The share that lies, and how."""
        if not self.liars:
            return 0.0, ""
        share, _, kind = self.liars.partition(":")
        if kind not in LIES:
            raise SettingsError(
                f"--hostile is {self.liars!r}; want a share and one of {', '.join(LIES)}: 0.1:sign-flip"
            )
        return _share("--hostile", self.liars, share), kind

    def to_json(self) -> dict[str, Any]:
        """As a dictionary."""
        return {**asdict(self), "availability": None if self.availability is None else str(self.availability)}


def _number(flag: str, given: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise SettingsError(f"{flag} is {given!r}; {text!r} is no number") from error


def _share(flag: str, given: str, text: str) -> float:
    value = _number(flag, given, text)
    if not 0 <= value <= 1:
        raise SettingsError(f"{flag} is {given!r}; a share is from 0 to 1")
    return value
