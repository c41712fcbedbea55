"""What the journal's entries say, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Run:
    """One run of rounds."""

    number: int
    bundle: bytes
    first: str
    """The version that the bundle holds."""
    settings: Mapping[str, Any]
    secret: bytes = field(repr=False)
    status: str = "running"


@dataclass(frozen=True)
class Round:
    """One round as it stands."""

    number: int
    phase: str
    """planned: devices are asked. collected: whose replies count is decided. closed: its version is there."""
    base: str
    asked: Mapping[str, Any]
    began: float
    ended: float | None
    version: str | None
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Task:
    """One message to a device, and what became of it."""

    round: int
    kind: str
    node: int
    device: str
    base: str
    state: str
    """sent, answered, believed, refused, late, or lost (no reply within its time)."""
    sent: float
    envelope: bytes | None = field(default=None, repr=False)
    content: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Reply:
    """A reply as bytes."""

    task: Task
    envelope: bytes = field(repr=False)
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Step:
    """The way from one version to the next."""

    version: str
    change: bytes
    note: bytes


@dataclass(frozen=True)
class Verdict:
    """What was made of one reply."""

    node: int
    kind: str = "train"
    refused: str = ""
    """Why, or empty."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    nonce: str = ""
    holds: str = ""
    """The version that the device holds for sure, since it trained from it; empty if it is not known."""
    round: int = 0
    """Of the task, where it is not the one that is closed."""
    forget: bool = False
    """The device does not hold what we thought: it is told the whole chain the next time."""


@dataclass(frozen=True)
class Closing:
    """All that a round's end writes."""

    parent: str
    step: Step
    verdicts: Sequence[Verdict]
    facts: Mapping[str, Any]
    companion: bytes
