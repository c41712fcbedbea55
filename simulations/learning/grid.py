"""A Flower grid of virtual devices in simulated time.

Flower's engine keeps every message in a list, looks through all of it for every node ten times a second, sends what a
node knows through the driver's memory, and answers as fast as it can: a thousand nodes take ten seconds a round before
anything is learnt, and no node is ever asleep, slow or late. This grid takes the place of its loop and of its link
state. What it keeps is the contract: it is a :class:`flwr.serverapp.Grid`, the ServerApp and the ClientApp are the
fleet's, messages and contexts are Flower's, and the actors are those of Flower's backend (:mod:`.crew`).

Time here is simulated. A reply comes when its device has trained (its steps at its pace), and is awake; a device that
drops out never answers. Time stands still while the ServerApp works, and jumps to the next reply, or to the round's
deadline, when it waits. In which order, and when, the actors really work does not matter, so a simulation gives the
same result on a laptop, on a cluster, and after it was killed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flwr.app import Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo

from headwater.compression.errors import LearningError
from headwater.protos.flower import Parcel, address, content_of, envelope_of, unpack
from headwater.server.federation.run_grid import RunGrid
from headwater.simulations.learning.answering import Work
from headwater.simulations.learning.shelf import Posted

if TYPE_CHECKING:
    from headwater.simulations.learning.crew import Crew
    from headwater.simulations.learning.fleet import Fleet
    from headwater.simulations.learning.shelf import Shelf

BEGIN = 1767225600.0
"""The moment at which every simulation begins, seconds since 1970: midnight, 1 January 2026, UTC."""
_MEASURING = 0.25
"""What measuring takes a device, beside training on the same images once."""
_FOREVER_S = 1e10
_MOST = 32
"""Devices in a batch, and replies that are delivered together."""
_TICK_S = 0.001
"""So long after a deadline it is over for sure, whatever the last bits of its sum are."""


@dataclass
class _Waiting:
    """A message whose reply was not worked out yet."""

    key: str
    node: int
    envelope: bytes = field(repr=False)
    content: str
    seconds: float


class VirtualGrid(RunGrid):
    """Asks virtual devices.

    Args:
        fleet: the devices.
        shelf: what they know.
        crew: who runs their app.
        gives_up_s: simulated seconds after which whoever waits for a reply looks at the clock.
        run_id: of the run.
        progress: called with the group, and how many of its replies were worked out and are out, from when it begins.
    """

    def __init__(
        self,
        fleet: Fleet,
        shelf: Shelf,
        crew: Crew,
        *,
        gives_up_s: float,
        run_id: int = 1,
        progress: Callable[[str, int, int], None] = lambda *_: None,
    ) -> None:
        self._fleet, self._shelf, self._crew, self._gives_up_s = fleet, shelf, crew, gives_up_s
        self._progress = progress
        super().__init__(run_id)
        self._now = shelf.moment()
        self._out: dict[str, Posted] = {}
        """Pushed, and not delivered."""
        self._waiting: list[_Waiting] = []
        """In the order of their replies, the next one last."""
        self._ready: set[str] = set()
        self._contents: dict[str, bytes] = {}
        self._group, self._pushed = "", 0

    # ------------------------------------------------------------ Flower's side

    def get_node_ids(self) -> Iterable[int]:
        """The devices that are awake."""
        awake = self._fleet.availability.awake(self._now)
        return [node for node, number in self._fleet.numbers.items() if awake[number]]

    def get_nodes(self) -> Iterable[NodeInfo]:
        """The devices that are awake, with their names, one after the other."""
        return (
            NodeInfo(node_id=node, name=self._fleet.name(self._fleet.numbers[node])) for node in self.get_node_ids()
        )

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send messages; one that was sent before (run, group, node, type) is found again, with its reply."""
        needed = {each.content for each in self._waiting}
        self._contents = {name: content for name, content in self._contents.items() if name in needed}
        names: dict[int, tuple[RecordDict, str]] = {}
        fresh: list[Posted] = []
        keys = []
        for message in messages:
            keys.append(key := self._key(message))
            self._group = message.metadata.group_id
            if key in self._out:
                continue
            posted = self._out[key] = self._shelf.posted(key) or self._post(message, key, fresh)
            if posted.state != "out":
                self._ready.add(key)
            elif math.isfinite(posted.due):
                self._await(message, posted, names)
        if fresh:
            self._shelf.post(self._group, fresh)
        self._waiting.sort(key=lambda each: (self._out[each.key].due, each.node), reverse=True)
        self._pushed = len(self._out)
        self._say()
        self._hand_out()
        return keys

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that have come by now, some at a time."""
        here = [self._out[key] for key in message_ids if key in self._out and self._out[key].due <= self._now]
        here = sorted(here, key=lambda each: (each.due, each.node))[:_MOST]
        while not all(each.key in self._ready for each in here):
            self._work()
        replies = [unpack(Parcel(*parcel)) for parcel in self._shelf.deliver(each.key for each in here)]
        for each in here:
            self._ready.discard(each.key)
            del self._out[each.key]
        return replies

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Push, and pull until all have answered, or the simulated time-out."""
        waiting, began, replies = set(self.push_messages(messages)), self._now, list[Message]()
        while waiting and (timeout is None or self._now - began < timeout):
            pulled = self.pull_messages(sorted(waiting))
            replies += pulled
            waiting -= {reply.metadata.reply_to_message_id for reply in pulled}
            if not pulled:
                self.wait(0.0)
        return replies

    # ------------------------------------------------------------ what our strategies ask for besides

    def clock(self) -> float:
        """Simulated seconds since 1970."""
        return BEGIN + self._now

    def secret(self, count: int) -> bytes:
        """Bytes that follow from the seed: a simulation has nothing to hide, and has to repeat."""
        return hashlib.shake_256(f"secret of {self._fleet.seed}".encode()).digest(count)

    def wait(self, _: float) -> None:
        """Let time pass until the next reply, somebody's giving up, or others are awake."""
        out = self._out.values()
        events = [*(each.due for each in out), *(each.pushed + self._gives_up_s + _TICK_S for each in out)]
        if len(out) < len(self._fleet):
            events.append(self._fleet.availability.next_change(self._now))
        later = [event for event in events if event > self._now and math.isfinite(event)]
        if not later:
            raise LearningError(
                f"the rounds wait for more than these {len(self._fleet)} virtual devices, and nobody else will come; "
                "ask for fewer (--least), or simulate more"
            )
        self._now = min(later)
        self._shelf.pass_to(self._now)

    def withdraw(self, keys: Iterable[str], _: str) -> None:
        """A round is over: whoever is late has not learnt."""
        for key in keys:
            self._out.pop(key, None)
            self._ready.discard(key)
        self._waiting = [each for each in self._waiting if each.key in self._out]

    def forget(self, group: str) -> None:
        """A round is in the journal."""
        self._shelf.forget(group)

    # ------------------------------------------------------------ inside

    def _key(self, message: Message) -> str:
        about = message.metadata
        facts = (self._run.run_id, about.group_id, about.dst_node_id, about.message_type)
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def _post(self, message: Message, key: str, fresh: list[Posted]) -> Posted:
        """Decide when the reply comes."""
        node = message.metadata.dst_node_id
        if node not in self._fleet.numbers:
            raise LearningError(f"there is no virtual device with the node id {node}")
        number, due = self._fleet.numbers[node], math.inf
        if not self._fleet.drops(number, key):
            due = self._fleet.availability.wakes(number, self._now + self._takes_s(message, number))
        fresh.append(Posted(key, node, self._now, due, "out"))
        return fresh[-1]

    def _takes_s(self, message: Message, number: int) -> float:
        round_: Any = message.content.config_records.get("round", {})
        seconds = self._fleet.takes_s(number, float(round_.get("epochs", 1.0)), int(round_.get("batch", 1)))
        return seconds if message.metadata.message_type == "train" else _MEASURING * seconds

    def _await(self, message: Message, posted: Posted, names: dict[int, tuple[RecordDict, str]]) -> None:
        """Note what the device is to be told; what many are told is kept once."""
        records = message.content
        if id(records) not in names:
            content = content_of(message)
            names[id(records)] = records, hashlib.sha256(content).hexdigest()
            self._contents[names[id(records)][1]] = content
        name = names[id(records)][1]
        address(message, self._run.run_id, posted.key)
        # What an app makes of a message's time has to repeat; and no reply may be too late for Flower.
        message.metadata.__dict__.update(_created_at=BEGIN + posted.pushed, _ttl=_FOREVER_S)
        number = self._fleet.numbers[posted.node]
        takes_s = self._takes_s(message, number)
        self._waiting.append(_Waiting(posted.key, posted.node, envelope_of(message), name, takes_s))

    def _work(self) -> None:
        """Let the crew work until something is done."""
        self._hand_out()
        for outcome in self._crew.finished():
            self._shelf.ready(outcome)
            self._ready |= {done.key for done in outcome.done if done.key in self._out}
        self._hand_out()
        self._say()

    def _say(self) -> None:
        self._progress(self._group, self._pushed - len(self._waiting), self._pushed)

    def _hand_out(self) -> None:
        """Give batches to whoever is idle, those whose replies come first."""
        while self._waiting and self._crew.room():
            count = min(_MOST, max(1, math.ceil(len(self._waiting) / (4 * self._crew.size()))))
            batch = [self._waiting.pop() for _ in range(min(count, len(self._waiting)))]
            self._crew.begin([self._job(each) for each in batch], self._load)

    def _job(self, waiting: _Waiting) -> Work:
        number, known = self._fleet.numbers[waiting.node], self._shelf.known(waiting.node)
        return Work(
            waiting.key,
            waiting.node,
            self._fleet.config(number),
            waiting.envelope,
            waiting.content,
            known.context,
            known.shared,
            self._fleet.lie(number),
            waiting.seconds,
        )

    def _load(self, name: str) -> bytes:
        return self._contents[name] if name in self._contents else self._shelf.shared(name)
