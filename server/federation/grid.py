"""Flower's grid over the devices' own streams: any strategy pushes here, and the devices at the other end answer.

    with StreamGrid(state, run_id=7) as grid:
        strategy.start(grid, ArrayRecord(...), num_rounds=3)

It works on the mailbox of a serving process, which may be stopped, killed and started meanwhile, as may this process:
a message has a key made of what it is, so that a strategy that begins again after a kill and pushes the same message
finds the one that is out there, or its reply. The key is of

    run, group, node, type                      if the message has a group: push each of these once
    run, node, type, content, how often before  if it has none, as Flower's own strategies have it

Replies are kept until :meth:`forget`, or until their time has passed and room is needed.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Self

from flwr.app import Message
from flwr.proto.node_pb2 import NodeInfo

from headwater.compression.allocator import keep
from headwater.compression.errors import LearningError, TransferError
from headwater.protos.flower import Parcel, acting_as, address, as_reply, content_of, envelope_of, error_reply, unpack
from headwater.server.federation.run_grid import RunGrid
from headwater.server.mail.doorbell import LOOK_S, Doorbell
from headwater.server.mail.mailbox import DEFAULT_LIMIT_BYTES, Mailbox
from headwater.server.mail.records import Wanted

if TYPE_CHECKING:
    from headwater.server.mail.records import Device, Offered

_NOTHING = b"\x00"
_KEPT_BYTES = 64 << 20  # of free memory: each round makes contents, and reads replies, of megabytes


class StreamGrid(RunGrid):
    """A grid over the devices that are, or will be, connected to the server of a mailbox; for one thread."""

    def __init__(self, state: Path, run_id: int = 1, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        """Open a mailbox.

        Args:
            state: the folder that ``headwater server --state`` was given.
            run_id: the same for a run that goes on after a kill, another one for a new run.
            limit_bytes: that contents and replies may take on the disk.

        Raises:
            StorageError: it cannot be opened.
        """
        keep(_KEPT_BYTES)
        self.mailbox = Mailbox(state, limit_bytes)
        self._bell = Doorbell(state)
        self.mailbox.own_bell = self._bell
        super().__init__(run_id)
        self._acting = acting_as(run_id)
        self._pushed: Counter[str] = Counter()

    def __enter__(self) -> Self:
        """Messages that are made inside are of this run."""
        self._acting.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._acting.__exit__(None, None, None)
        self.close()

    def close(self) -> None:
        """Close the mailbox; what is in it goes on."""
        self._bell.close()
        self.mailbox.close()

    # ------------------------------------------------------------ Flower's side

    def get_node_ids(self) -> Iterable[int]:
        """The devices that are connected and take part."""
        return [one.node for one in self._there()]

    def get_nodes(self) -> Iterable[NodeInfo]:
        """The devices that are connected and take part, with their names."""
        return [NodeInfo(node_id=one.node, name=one.name) for one in self._there()]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Have messages wait for their devices, each for as long as it lives.

        Raises:
            LearningError: one goes to a node that was never connected.
            NoRoomError: the mailbox is full of what nobody has answered or read.
        """
        known = {one.node for one in self.mailbox.devices()}
        shared: dict[int, bytes] = {}
        wanted = [self._wanted(message, known, shared) for message in list(messages)]
        return [one.key for one in self.mailbox.offer(wanted)]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that are there, in the order of the messages; one that cannot be had is an error reply."""
        settled = self.mailbox.find(list(message_ids), settled=True)
        replies = [self._reply(one) for one in settled]
        if settled:
            self.mailbox.taken(settled)
        return replies

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Push, and wait for all replies or the timeout, in seconds; those that came, in the order of the messages."""
        keys = self.push_messages(messages)
        until_s = float("inf") if timeout is None else time.monotonic() + timeout
        came: dict[str, Message] = {}
        while True:
            for reply in self.pull_messages([key for key in keys if key not in came]):
                came[reply.metadata.reply_to_message_id] = reply
            left_s = until_s - time.monotonic()
            if len(came) == len(set(keys)) or left_s <= 0:
                return [came[key] for key in dict.fromkeys(keys) if key in came]
            self.wait(left_s)

    # ------------------------------------------------------------ more than Flower asks for

    def wait(self, timeout_s: float) -> bool:
        """Wait until something may have come, at most so long and a few seconds; whether a bell rang."""
        return self._bell.wait(min(timeout_s, LOOK_S))

    def forget(self, group: str | None = None) -> None:
        """Delete the messages and replies of a group, or of the run: what they said is kept elsewhere by now."""
        self.mailbox.forget(self._run.run_id, group)

    def withdraw(self, message_ids: Iterable[str], why: str) -> None:
        """Want no replies to these any more; devices that have not begun will not."""
        self.mailbox.withdraw(message_ids, why)

    # ------------------------------------------------------------ inside

    def _there(self) -> list[Device]:
        return [one for one in self.mailbox.devices() if one.connected and "federated" in one.capabilities]

    def _wanted(self, message: Message, known: set[int], shared: dict[int, bytes]) -> Wanted:
        about = message.metadata
        if about.dst_node_id not in known:
            names = ", ".join(f"{one.name} ({one.node})" for one in self.mailbox.devices()) or "none so far"
            raise LearningError(f"there is no node {about.dst_node_id}; connected were: {names}")
        sha256 = self._stored(message, shared)
        key = self._key(message, sha256)
        envelope = envelope_of(address(message, self._run.run_id, key))
        return Wanted(
            key,
            about.dst_node_id,
            "message",
            sha256,
            run=self._run.run_id,
            group=about.group_id,
            envelope=envelope,
            valid_for_s=about.created_at + about.ttl - time.time(),
        )

    def _stored(self, message: Message, shared: dict[int, bytes]) -> bytes:
        """The content's hash; records that several messages share are written once."""
        if id(message.content) not in shared:
            shared[id(message.content)] = self.mailbox.put(content_of(message))
        return shared[id(message.content)]

    def _key(self, message: Message, sha256: bytes) -> str:
        about = message.metadata
        facts = [str(self._run.run_id), about.group_id, str(about.dst_node_id), about.message_type]
        if not about.group_id:
            facts.append(sha256.hex())
            nth = "/".join(facts)
            facts.append(str(self._pushed[nth]))
            self._pushed[nth] += 1
        return hashlib.sha256("/".join(facts).encode()).hexdigest()

    def _reply(self, one: Offered) -> Message:
        asked = unpack(Parcel(one.envelope, _NOTHING))
        return as_reply(self._answer(one, asked), asked)

    def _answer(self, one: Offered, asked: Message) -> Message:
        if one.state == "refused":
            return error_reply(asked, one.detail or "the device refused", "refused")
        if one.state == "withdrawn":
            return error_reply(asked, one.detail, "expired")
        try:
            return unpack(Parcel(one.reply_envelope, self.mailbox.blobs.read(one.reply_sha256)))
        except (LearningError, TransferError) as error:
            return error_reply(asked, str(error), "damaged")
