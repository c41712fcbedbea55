"""What the agent and its training process say to each other: a JSON object a line, what is large as files.

agent ──> process    Job      a message to answer, and what it may take
agent <── process    Ready    once, when app and libraries are loaded
                     Answer   the reply and the new context, on the disk already; or
                     Failed   why there is none, and never will be
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

Config: TypeAlias = Mapping[str, str | int | float | bool]


@dataclass(frozen=True)
class Job:
    """A federated message to be answered."""

    envelope: str
    """Base 64."""
    content: str
    """SHA-256 of it, hex; a blob of ``blobs``, as are those below."""
    contexts: Mapping[str, str]
    """The context of each run, by the run's number, or that of every run."""
    config: Config
    """The node config that the app gets."""
    room_bytes: int
    """What it may take above the idle process."""
    blobs: str
    """Folder."""
    limit_bytes: int
    """Of that folder."""


@dataclass(frozen=True)
class Ready:
    """The process has loaded its app."""

    idle_bytes: int
    """What it takes now, resident."""


@dataclass(frozen=True)
class Answer:
    """A reply, and what the app wants to know next time."""

    run: str
    """Whose context it is: the run's number, or the word for every run."""
    envelope: str
    """Base 64."""
    content: str
    """SHA-256 of it, hex."""
    context: str | None
    """SHA-256 of it, hex; None where it stays as it was: the reply is an error."""


@dataclass(frozen=True)
class Failed:
    """There is no reply, whatever is tried."""

    reason: str


Word: TypeAlias = Job | Ready | Answer | Failed
_KINDS: dict[str, type[Word]] = {kind.__name__: kind for kind in (Job, Ready, Answer, Failed)}


def to_line(word: Word) -> bytes:
    """One line."""
    return json.dumps([type(word).__name__, asdict(word)]).encode() + b"\n"


def from_line(line: bytes) -> Word:
    """The other way round; for lines of our own only."""
    kind, fields = json.loads(line)
    return _KINDS[kind](**fields)


def blob(folder: str, name: str) -> Path:
    """A file of a job."""
    return Path(folder) / name
