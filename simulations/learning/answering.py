"""What an actor does: it runs the fleet's ClientApp for one virtual device after the other.

An actor is all devices in turn. It is given what a device knows (its Flower context, as bytes) with the message, and
gives back the reply and what the device knows then; between two devices it keeps nothing but caches. So a device may be
answered for by any actor, on any machine, and twice if need be.

What many devices have alike travels once: the content of a broadcast, and of what devices know the records that belong
to the version that they hold (:data:`SHARED`); both are named by their SHA-256 and fetched when an actor lacks them.
"""

from __future__ import annotations

import gc
import hashlib
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # read while flwr is imported

from flwr.app import Context, Message, RecordDict

from headwater.device.federated.app import app
from headwater.device.federated.holding import OF_VERSION, start_of
from headwater.protos.flower import Parcel, call, context_from_bytes, context_to_bytes, pack, unpack
from headwater.simulations.learning.hostile import lied

Fetch = Callable[[str], bytes]
"""Bytes by their SHA-256, hex."""
_KEPT = 8


@dataclass(frozen=True)
class Work:
    """A message to a device."""

    key: str
    node: int
    config: Mapping[str, Any]
    envelope: bytes = field(repr=False)
    content: str
    """SHA-256 of the message's content."""
    context: bytes | None = field(default=None, repr=False)
    """What the device knows, but for what it shares; None at first."""
    shared: str = ""
    """SHA-256 of what it shares; empty for nothing."""
    lie: str = ""
    seconds: float = 0.0
    """Simulated: what it says that training took."""


@dataclass(frozen=True)
class Done:
    """What came of it."""

    key: str
    node: int
    envelope: bytes = field(repr=False)
    content: bytes = field(repr=False)
    context: bytes = field(repr=False)
    shared: str = ""
    """SHA-256 of what the device shares now; it is in the outcome if it is new."""


@dataclass
class Outcome:
    """Of a batch."""

    done: list[Done] = field(default_factory=list)
    shared: dict[str, bytes] = field(default_factory=dict, repr=False)
    """What was not known before."""


class Answering:
    """One actor's work, without the actor."""

    def __init__(self, bundle: bytes) -> None:
        """`bundle`: the zip, which is written where this process may read it."""
        self._folder = tempfile.TemporaryDirectory(prefix="headwater-")
        self._bundle = Path(self._folder.name) / "bundle.zip"
        self._bundle.write_bytes(bundle)
        start = start_of(str(self._bundle))
        start.kept.append(start.network())  # making one takes as long as training it on a few images
        self._layout = start.layout
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._read: tuple[str, RecordDict] = "", RecordDict()
        """What was shared last, read, and its name: the next device mostly shares the same."""
        self._loaded = False
        """Whether everything is that is loaded when it is first needed."""

    def close(self) -> None:
        """Remove the zip."""
        self._folder.cleanup()
        gc.unfreeze()

    def answer(self, works: Sequence[Work], fetch: Fetch) -> Outcome:
        """Answer all of a batch."""
        outcome = Outcome()
        for work in works:
            outcome.done.append(self._one(work, fetch, outcome.shared))
            if not self._loaded:
                self._loaded = True
                gc.collect()
                gc.freeze()  # before each training the app looks through all that is not frozen
        return outcome

    def _one(self, work: Work, fetch: Fetch, shared: dict[str, bytes]) -> Done:
        message = unpack(Parcel(work.envelope, self._get(work.content, fetch)))
        context = self._context(work, message, fetch)
        reply = call(app, message, context)
        if work.lie and message.metadata.message_type == "train":
            reply = lied(reply, work.lie, self._layout, int(work.key[:8], 16))
        parcel = pack(_simulated(reply, work.seconds))
        rest, name = self._parted(context, work.shared, shared)
        return Done(work.key, work.node, parcel.envelope, parcel.content, rest, name)

    def _context(self, work: Work, message: Message, fetch: Fetch) -> Context:
        run, config = message.metadata.run_id, {**work.config, "bundle": str(self._bundle)}
        if work.context is None:
            return Context(run, work.node, config, RecordDict(), {})
        context = context_from_bytes(work.context)
        context.node_config = config
        if work.shared:
            if self._read[0] != work.shared:
                self._read = work.shared, context_from_bytes(self._get(work.shared, fetch)).state
            context.state.update(self._read[1])
        return context

    def _parted(self, context: Context, before: str, shared: dict[str, bytes]) -> tuple[bytes, str]:
        """What is the device's own, and the name of what it shares; that is put into `shared` if it is another now."""
        common = RecordDict({name: context.state.pop(name) for name in OF_VERSION if name in context.state})
        context.node_config = {}
        name = ""
        if common:
            data = context_to_bytes(Context(0, 0, {}, common, {}))
            name = hashlib.sha256(data).hexdigest()
            if name != before:
                shared[name] = data
            self._keep(name, data)
        return context_to_bytes(context), name

    def _get(self, name: str, fetch: Fetch) -> bytes:
        if name not in self._kept:
            self._keep(name, fetch(name))
        self._kept.move_to_end(name)
        return self._kept[name]

    def _keep(self, name: str, data: bytes) -> None:
        self._kept[name] = data
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)


def _simulated(reply: Message, seconds: float) -> Message:
    """Figures of this machine are none of the device's: its time is the simulated one, its memory is not known."""
    if reply.has_content() and "metrics" in reply.content.metric_records:
        metrics = reply.content.metric_records["metrics"]
        metrics.pop("peak-bytes", None)
        if "seconds" in metrics:
            metrics["seconds"] = seconds
    return reply
