"""What happened to each frame, as JSON lines.

A line is written whole and handed to the system at once, so killing the agent loses at most the last line, and a file
that ends in half a line is mended by the next writer and read without it. While the disk is full or cannot be written,
the answers go on and their records wait. One line (wrapped here)::

    {"sequence": 7, "name": "cell0031.png", "taken": "2026-05-04T09:12:33.120+00:00", "source": "edge", "status": "ok",
     "detail": "", "action": "send", "reason": "fits", "mode": 4, "width": 0.25, "gain": 0, "groups": 3,
     "bytes": 31, "attempts": 1, "groups_used": 3, "deadline_ms": 300.0, "latency_ms": 9.6, "prepare_ms": 0.4,
     "head_ms": 0.5, "exit_ms": 0.1, "code_ms": 0.1, "wait_ms": 0.0, "round_trip_ms": 8.4, "whole_ms": 0.0,
     "server": {"queue_us": 40, "decode_us": 25, "run_us": 1100, "batch": 1, "queue_depth": 0}, "confidence": 0.81,
     "bundle": "4f0c1a77d2", "results": {"defect": {"label": "intact", "score": 0.93}}, "truth": {"defect": "intact"}}
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from headwater.compression.errors import DataError, SettingsError
from headwater.device.disk import is_disk_s

if TYPE_CHECKING:
    from io import FileIO

    from headwater.device.control.controller import Action

MOST_WAITING = 4096
RETRY_S = 1.0
"""How often it is looked whether a disk that took nothing takes what waits."""
"""Records that wait in memory, some kilobytes each, for a disk that is full or cannot be written."""

_log = logging.getLogger(__name__)

Source = Literal["edge", "local", "none"]
Status = Literal[
    "ok",
    "invalid_frame",
    "unknown_bundle",
    "busy",
    "expired",
    "cancelled",
    "draining",
    "unknown_task",
    "internal",
    "skipped",
]


@dataclass(frozen=True)
class Result:
    """The answer to one task."""

    label: str
    """The likeliest class."""
    score: float
    """Its probability, 0 to 1."""
    scores: Mapping[str, float]
    """The probability of every class; they sum to 1."""


@dataclass(frozen=True)
class ServerTimes:
    """What the server says that it took; `decode_us` and `run_us` are the whole batch's."""

    queue_us: int = 0
    decode_us: int = 0
    run_us: int = 0
    batch: int = 0
    queue_depth: int = 0
    collect_us: int = 0
    """Of a frame in parts: from its first part's arrival to its being queued. The link's time, so not in the total."""

    @property
    def total_ms(self) -> float:
        """From the frame's arrival at the server to its answer, ms."""
        return (self.queue_us + self.decode_us + self.run_us) / 1e3


@dataclass(frozen=True)
class FrameRecord:
    """One frame, from its picture to its answer. Durations in ms."""

    sequence: int
    """Counts up from 1 in one run of the agent."""
    name: str
    """The picture's name in its source."""
    taken: str
    """When the picture was taken, by the device's clock: ISO 8601, UTC."""
    source: Source
    """Who answered: "edge" for the server, "local" for the device itself, "none" where nobody did."""
    status: Status
    """"ok", or why there is no answer. "skipped": the controller saw no use in trying."""
    detail: str
    """What the server or the link said to a status that is not "ok", or why the exit stepped in for the server."""
    mode: int
    """Index into the bundle's modes. Where nothing was coded the gain means nothing; where no head ran, the width."""
    width: float
    gain: int
    groups: int
    """Channel groups that were coded."""
    bytes: int
    """Of the frame with its header, of one in parts those parts that were written; what gRPC, TCP and IP add is not
    counted. 0 where nothing was written."""
    attempts: int
    """How often the frame was written; more than 1 after a broken connection or a full server."""
    latency_ms: float
    """From taking the picture to having the answer."""
    prepare_ms: float
    head_ms: float
    code_ms: float
    wait_ms: float
    """From the coded frame to its being written for the last time: for its turn, a connection, or a full server."""
    round_trip_ms: float
    """From then to the answer; 0 where there is none."""
    server: ServerTimes = field(default_factory=ServerTimes)
    results: Mapping[str, Result] = field(default_factory=dict)
    """By task."""
    truth: Mapping[str, str] = field(default_factory=dict)
    """The right label of each task, where the source knew it."""
    exit_ms: float = 0.0
    """What the local exit took, where there is one."""
    groups_used: int = 0
    """Channel groups that the server answered from: fewer than coded where parts were late or damaged."""
    images: Mapping[str, str] = field(default_factory=dict)
    """File of the picture of each image task."""
    action: Action = "send"
    """What the device did: "send", "local" (the exit answered, nothing was sent), "whole" (the whole model ran here) or
    "skip". A frame of action "send" whose source is "local" was answered by the exit in the server's place."""
    reason: str = ""
    """Why, in the controller's words."""
    confidence: float | None = None
    """The local exit's score of its own answer, whoever answered in the end; None where it has not judged."""
    whole_ms: float = 0.0
    """What the whole model took on the device, where it ran."""
    deadline_ms: float | None = None
    """From taking the picture to having its answer, where there was a limit."""
    bundle: str = ""
    """Short id of the bundle that the device used."""

    def __getitem__(self, task: str) -> Result:
        """The answer to a task; KeyError with the tasks there are."""
        try:
            return self.results[task]
        except KeyError:
            raise KeyError(f"no answer to {task!r}; there are {', '.join(self.results) or 'none'}") from None

    @property
    def correct(self) -> Mapping[str, bool]:
        """Whether the answer is right, for each task whose truth is known."""
        return {task: result.label == self.truth[task] for task, result in self.results.items() if task in self.truth}

    @property
    def stepped_in(self) -> bool:
        """Whether the local exit answered because the server did not, or not in time."""
        return self.source == "local" and self.action == "send"

    @property
    def in_time(self) -> bool:
        """Whether there is an answer, and by the deadline if there was one."""
        return self.status == "ok" and (self.deadline_ms is None or self.latency_ms <= self.deadline_ms)

    def to_json(self) -> str:
        """One line without its end; times to the microsecond, scores to four digits."""
        return json.dumps(_rounded(asdict(self)), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Read a line of :meth:`to_json`; ValueError for one that is cut short."""
        plain: dict[str, Any] = json.loads(line)
        server = ServerTimes(**plain.pop("server"))
        results = {task: Result(**result) for task, result in plain.pop("results").items()}
        return cls(server=server, results=results, **plain)


def _rounded(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return value


class RecordFile:
    """Appends records to a file of JSON lines.

    A disk that takes nothing costs no answer: lines wait in memory, :data:`MOST_WAITING` at most, and are written when
    it takes some again. Of more than that the oldest are dropped, and counted.
    """

    def __init__(self, path: Path) -> None:
        """Open for appending and mend a last line that a killed agent left unfinished; SettingsError if it cannot."""
        self.path = path
        self.dropped = 0
        """Records that were not written because the disk took nothing for too long."""
        self._waiting: deque[bytes] = deque()
        self._rest = b""
        """What is to come before the next line: the end of one of which the disk took only a part."""
        self._complained = False
        self._file: FileIO | None = None
        try:
            self._file = self._open()
        except OSError as error:
            if not is_disk_s(error):
                raise SettingsError(
                    f"records cannot be written to {path}: {error.strerror}; name another file"
                ) from error
            self._keep_waiting(error)

    def _open(self) -> FileIO:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._rest = b"\n" if _is_torn(self.path) else b""
        return self.path.open("ab", buffering=0)

    def write(self, record: FrameRecord) -> None:
        """Append one line, in one write, after those that waited for the disk."""
        self._waiting.append(record.to_json().encode() + b"\n")
        self._flush()

    async def retry(self) -> None:
        """Write what waits soon after the disk takes it again, though no record may follow; until cancelled."""
        while True:
            await asyncio.sleep(RETRY_S)
            if self._waiting or self._rest:
                self._flush()

    def _flush(self) -> None:
        if self._write_waiting() and self._complained:
            self._complained = False
            _log.warning("records are written to %s again; %d were dropped", self.path, self.dropped)

    def _write_waiting(self) -> bool:
        try:
            self._file = self._file or self._open()
            while self._rest or self._waiting:
                self._rest = self._rest or self._waiting.popleft()
                self._rest = self._rest[self._file.write(self._rest) :]
        except OSError as error:
            self._keep_waiting(error)
            return False
        return True

    def _keep_waiting(self, error: OSError) -> None:
        while len(self._waiting) > MOST_WAITING:
            self._waiting.popleft()
            self.dropped += 1
        if not self._complained:  # once, not for each frame
            _log.error("records cannot be written to %s for now: %s", self.path, error.strerror)
            self._complained = True

    def close(self) -> None:
        """Close the file; what waits is written if the disk takes it now."""
        if not self._write_waiting():
            lost = self.dropped + len(self._waiting) + bool(self._rest)
            _log.error("%d records were not written to %s", lost, self.path)
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_torn(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def read_records(path: Path) -> Iterator[FrameRecord]:
    """Read records back, leaving out lines that a killed agent left unfinished; DataError if there is no such file."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"the records {path} cannot be read: {error.strerror}") from error
    for line in lines:
        try:
            yield FrameRecord.from_json(line.decode(errors="replace"))
        except ValueError:
            continue
