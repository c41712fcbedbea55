"""The training process: it loads the app once and answers one message after the other (``python -m``, by the agent).

It is the only one on the device that imports Flower, and torch if the app does. It is made to be killed:

- it ends when the agent does, whatever ends that; it goes first when the machine's memory runs out;
- it runs when nobody else wants the processor (SCHED_IDLE), unless the settings give it more, and on one thread unless
  the app asks for more;
- what an app allocates beyond its room is refused (RLIMIT_DATA), which makes it an error reply and no dead process;
- all that it leaves behind are blobs that nobody knows yet: the agent makes reply and context count, both at once.

An app that leaves chance to the global generators of ``random``, NumPy or torch (imported with its module) finds them
in a state that depends on the message alone, so that one that is answered again after a kill gets the same reply.
"""

from __future__ import annotations

import base64
import ctypes
import gc
import hashlib
import importlib
import os
import random
import resource
import signal
import sys
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from headwater.compression.allocator import give_back
from headwater.compression.errors import HeadwaterError
from headwater.compression.transfer import BlobStore
from headwater.device.federated.jobs import Answer, Failed, Job, Ready, from_line, to_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from flwr.app import Context, Message

    App = Callable[[Message, Context], Message]

SLACK_BYTES = 64 << 20
"""Beyond its room, what a process may reserve without using it: stacks of threads, the allocator's arenas."""
LOWEST = 19
"""From this niceness on, the process runs only when nobody else wants to."""
OUTLIVES = "STATE_OUTLIVES_RUNS"
"""A module that sets this to True has its app's state kept from run to run; Flower's own way is a state for each."""
EVERY = "every"
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """``worker PARENT NICE MODULE:NAME``, with jobs on standard input and words about them on standard output."""
    parent, nice, name = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    stay_low(parent, nice)
    jobs, words = _own_pipes()
    try:
        app, outlives = load(name), outlives_runs(name)
    except Exception as error:  # noqa: BLE001 - a module may raise anything while it is imported
        _say(words, Failed(f"{name} cannot be loaded: {type(error).__name__}: {error}"))
        return
    _settle()
    gc.freeze()  # what is loaded stays: looking through it after each message would take longer than a short one
    worker = Worker(app, _status_bytes("VmData"), outlives)
    _say(words, Ready(_status_bytes("VmRSS")))
    for line in jobs:
        job = from_line(line)
        assert isinstance(job, Job)
        _say(words, worker.answer(job))
        _settle()


def load(name: str) -> App:
    """The app of ``MODULE:NAME``."""
    module, _, attribute = name.partition(":")
    app: App = getattr(importlib.import_module(module), attribute)
    return app


def outlives_runs(name: str) -> bool:
    """Whether the app's module asks for one state in all runs."""
    return bool(getattr(sys.modules[name.partition(":")[0]], OUTLIVES, False))


@dataclass(frozen=True)
class Worker:
    """Answers messages with one app."""

    app: App
    idle_data_bytes: int
    """What the process had mapped for data before its first message."""
    outlives_runs: bool = False
    """One state in all runs, instead of one in each."""

    def answer(self, job: Job) -> Answer | Failed:
        """Have the app answer; reply and context are on the disk then."""
        try:
            return self._answer(job)
        except HeadwaterError as error:
            return Failed(str(error))

    def _answer(self, job: Job) -> Answer:
        from headwater.protos import flower  # noqa: PLC0415 - takes a second; the app has loaded it already

        store = BlobStore(Path(job.blobs), job.limit_bytes)
        envelope = base64.b64decode(job.envelope)
        message = flower.unpack(flower.Parcel(envelope, store.read(bytes.fromhex(job.content))))
        run = EVERY if self.outlives_runs else str(message.metadata.run_id)
        context = self._context(job, run, store, message)
        _seed(message, job.content)
        reply = self._within(job.room_bytes, lambda: flower.call(self.app, message, context))
        parcel = flower.pack(reply)
        context.node_config = {}  # each message brings its own; one that changed nothing leaves the same bytes
        kept = None if reply.has_error() else store.put(flower.context_to_bytes(context)).hex()
        return Answer(run, base64.b64encode(parcel.envelope).decode(), store.put(parcel.content).hex(), kept)

    @staticmethod
    def _context(job: Job, of: str, store: BlobStore, message: Message) -> Context:
        from flwr.app import Context, RecordDict  # noqa: PLC0415 - as above

        from headwater.protos import flower  # noqa: PLC0415 - as above

        run, node = message.metadata.run_id, message.metadata.dst_node_id
        kept = job.contexts.get(of)
        if kept is None:
            return Context(run, node, dict(job.config), RecordDict(), {})
        context = flower.context_from_bytes(store.read(bytes.fromhex(kept)))
        context.run_id, context.node_config = run, dict(job.config)
        return context

    def _within(self, room_bytes: int, work: Callable[[], Message]) -> Message:
        """Do it with so much memory above the idle process, and no more."""
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (self.idle_data_bytes + room_bytes + SLACK_BYTES, hard))
        try:
            return work()
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def stay_low(parent: int, nice: int) -> None:
    """Be the last to run, the first to go, and gone with the process ``parent``."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel knew of our wish
        sys.exit("the agent has ended")
    os.nice(nice)
    if nice >= LOWEST:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The pipes to the agent, out of reach of an app that prints or reads."""
    jobs, words = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # the log has what was printed, also of a process that is killed
    return jobs, words


def _say(words: BinaryIO, word: Ready | Answer | Failed) -> None:
    words.write(to_line(word))
    words.flush()


def _seed(message: Message, content: str) -> None:
    """By what is asked, in which round, and of whom: neither by the run's number, nor by when it was sent."""
    about = message.metadata
    text = f"{content} {about.group_id} {about.dst_node_id} {about.message_type}"
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the global one, which apps may use
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)


def _settle() -> None:
    """Give back what is not needed while the process waits."""
    gc.collect()
    give_back()


def _status_bytes(key: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) << 10
    raise AssertionError(f"Linux tells no {key}")


if __name__ == "__main__":
    main()
