"""The training process of a device as a benchmark sees it: the real worker, given one message after the other."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

from flwr.app import ConfigRecord, Message, RecordDict

from headwater.compression.transfer import BlobStore
from headwater.device.federated.jobs import Answer, Job, Ready, from_line, to_line
from headwater.device.federated.trainer import ENVIRONMENT
from headwater.protos.flower import Parcel, acting_as, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

APP = "headwater.device.federated.app:app"
ROOM = 8 << 30
NODE = 1
_STEPS, _STEP_S = 20, 0.1


@dataclass
class TrainingWorker:
    """A worker that runs."""

    process: subprocess.Popen[bytes]
    store: BlobStore
    contexts: dict[str, str] = field(default_factory=dict)

    def answer(self, message: Message, config: Mapping[str, str]) -> Mapping[str, float]:
        """Have it answer as an agent would, its state kept; the metrics of its reply."""
        parcel = pack(message)
        envelope = base64.b64encode(parcel.envelope).decode()
        content, blobs = self.store.put(parcel.content).hex(), str(self.store.folder)
        job = Job(envelope, content, self.contexts, config, ROOM, blobs, self.store.limit_bytes)
        assert self.process.stdin is not None
        self.process.stdin.write(to_line(job))
        self.process.stdin.flush()
        answer = self.word()
        assert isinstance(answer, Answer), answer
        reply = unpack(Parcel(base64.b64decode(answer.envelope), self.store.read(bytes.fromhex(answer.content))))
        assert not reply.has_error(), reply.error.reason
        assert answer.context is not None
        self.contexts[answer.run] = answer.context
        return cast("Mapping[str, float]", reply.content.metric_records["metrics"])

    def word(self) -> Any:  # noqa: ANN401 - any of its words
        """What it says next."""
        assert self.process.stdout is not None
        return from_line(self.process.stdout.readline())

    def idle_bytes(self) -> int:
        """What it takes while it waits for a message, when it has given back what it could."""
        taken = self._status("VmRSS")
        for _ in range(_STEPS):
            time.sleep(_STEP_S)
            last, taken = taken, self._status("VmRSS")
            if taken == last and self._state() == "S":
                break
        return taken

    def forget_peak(self) -> None:
        """Measure the peak from here on."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5", encoding="ascii")

    def peak_bytes(self) -> int:
        """The most that it took since then; training asks for the same from its own beginning on, before which a
        message takes less."""
        return self._status("VmHWM")

    def _status(self, key: str) -> int:
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{key}:"))

    def _state(self) -> str:
        return Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]


@contextmanager
def training_worker(folder: Path) -> Iterator[TrainingWorker]:
    """Start one, with the environment that agents give it and at usual priority."""
    command = [sys.executable, "-m", "headwater.device.federated.worker", str(os.getpid()), "0", APP]
    with subprocess.Popen(
        command, env={**ENVIRONMENT, **os.environ}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            worker = TrainingWorker(process, BlobStore(folder / "blobs", 1 << 32))
            assert isinstance(worker.word(), Ready)
            yield worker
        finally:
            process.kill()


def message(round_: Mapping[str, Any], down: Mapping[str, Any]) -> Message:
    """A message of a round."""
    records = {"round": ConfigRecord(dict(round_)), "down": ConfigRecord(dict(down))}
    with acting_as(1):
        return Message(RecordDict(cast("Any", records)), NODE, "train", group_id="1")
