"""A Flower grid without a network: it runs the real ClientApp of every node in this process.

Tests, simulations and benchmarks run the very strategies and apps that a fleet runs, without a port or a process, and
without a clock: time passes by pulls. A node answers at the pull that its pace says, one that sleeps does not answer
until it is woken, and messages and replies go through the same bytes as on the wire, so that a size that is counted
here is the size that travels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flwr.app import Context, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo

from headwater.compression.errors import LearningError
from headwater.protos.flower import SERVER_NODE, Parcel, call, node_id, pack, unpack
from headwater.server.federation.run_grid import RunGrid

if TYPE_CHECKING:
    from flwr.app import UserConfigValue
    from flwr.clientapp import ClientApp


@dataclass
class Node:
    """One device: its name, its context, and how it behaves."""

    name: str
    context: Context
    pace: int = 1
    """It answers at so many pulls after it could begin: 1 is at the next one."""
    awake: bool = True
    bytes_down: int = 0
    """Of all messages that it was sent, packed."""
    bytes_up: int = 0
    """Of all its replies, packed."""
    calls: int = 0


@dataclass
class _Task:
    node: int
    parcel: Parcel
    waited: int = 0
    reply: Parcel | None = None


class InProcessGrid(RunGrid):
    """Runs `app` for named nodes.

    Args:
        app: any ClientApp, or a function of a message and a context.
        nodes: the node config of each, by the device's name.
        run_id: of the run; contexts are kept from run to run, as a device keeps its state.
        tamper: changes the reply of a node before it is delivered, by the device's name: a hostile device.
    """

    def __init__(
        self,
        app: ClientApp | Callable[[Message, Context], Message],
        nodes: Mapping[str, Mapping[str, UserConfigValue]],
        *,
        run_id: int = 1,
        tamper: Mapping[str, Callable[[Message], Message]] | None = None,
    ) -> None:
        self.app: Any = app
        self.tamper = dict(tamper or {})
        super().__init__(run_id)
        self.nodes = {node_id(name): _node(name, config, run_id) for name, config in nodes.items()}
        self._tasks: dict[str, _Task] = {}

    def named(self, device: str) -> Node:
        """The node of a device; raises :class:`LearningError` for a name that is none."""
        try:
            return self.nodes[node_id(device)]
        except KeyError:
            names = ", ".join(sorted(node.name for node in self.nodes.values()))
            raise LearningError(f"there is no device {device!r} in this grid; it has {names}") from None

    # ------------------------------------------------------------ Flower's side

    def get_node_ids(self) -> Iterable[int]:
        """The nodes that are awake."""
        return sorted(key for key, node in self.nodes.items() if node.awake)

    def get_nodes(self) -> Iterable[NodeInfo]:
        """The nodes that are awake, with their names."""
        return [NodeInfo(node_id=key, name=self.nodes[key].name) for key in self.get_node_ids()]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Queue messages; one that was pushed before (run, group, node, type) is found again, with its reply."""
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Let time pass by one pull, and take the replies that are there."""
        wanted = [key for key in message_ids if key in self._tasks]
        for key in wanted:
            self._advance(self._tasks[key])
        return [unpack(reply) for key in wanted if (reply := self._tasks[key].reply) is not None]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Push, and pull until every node that is awake has answered; `timeout` counts pulls here."""
        keys = self.push_messages(messages)
        pulls = 0
        while True:
            replies, pulls = self.pull_messages(keys), pulls + 1
            if not any(self._may_answer(self._tasks[key]) for key in keys) or (timeout is not None and pulls > timeout):
                return replies

    def wait(self, _: float) -> None:
        """Nothing to wait for: time passes by pulls."""

    # ------------------------------------------------------------ inside

    def _push(self, message: Message) -> str:
        about = message.metadata
        facts = (self._run.run_id, about.group_id, about.dst_node_id, about.message_type)
        key = hashlib.sha256(repr(facts).encode()).hexdigest() if about.group_id else f"{len(self._tasks)}"
        if key not in self._tasks:
            about.__dict__.update(_message_id=key, _run_id=self._run.run_id, _src_node_id=SERVER_NODE)
            self._tasks[key] = _Task(about.dst_node_id, pack(message))
            self.nodes[about.dst_node_id].bytes_down += len(self._tasks[key].parcel.content)
        return key

    def _may_answer(self, task: _Task) -> bool:
        return task.reply is None and self.nodes[task.node].awake

    def _advance(self, task: _Task) -> None:
        if self._may_answer(task):
            task.waited += 1
            if task.waited >= self.nodes[task.node].pace:
                self._answer(task)

    def _answer(self, task: _Task) -> None:
        node = self.nodes[task.node]
        reply = call(self.app, unpack(task.parcel), node.context)
        node.calls += 1
        if node.name in self.tamper:
            reply = self.tamper[node.name](reply)
        task.reply = pack(reply)
        node.bytes_up += len(task.reply.content)


def _node(name: str, config: Mapping[str, UserConfigValue], run_id: int) -> Node:
    return Node(name, Context(run_id, node_id(name), dict(config), RecordDict(), {}))
