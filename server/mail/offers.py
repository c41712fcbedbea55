"""What each connected device has been told is there for it, and what it said to that.

    a ring, a new stream, a settled offer ──> refresh(): the first open offers of the device ──Offer──> device
                                                        device ──OfferReply, BundleNotice──> mailbox

However many messages wait for a device, it is told of a few at a time, in their order; the next ones follow as these
are settled. On a new stream it is told again of what is still open, under the same numbers.

Used on the event loop; the mailbox is worked on elsewhere, in order, by what :class:`Disk` is given.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from headwater.protos import edge_pb2 as pb
from headwater.protos.nodes import node_id
from headwater.server.admission import Refusal
from headwater.server.mail.records import Device, Offered, Subject

if TYPE_CHECKING:
    from headwater.server.mail.disk import Disk
    from headwater.server.mail.mailbox import Mailbox
    from headwater.server.metrics import Metrics
    from headwater.server.session import Outbox, Session

FEDERATED = "federated"
"""The capability of a device that takes messages; the others keep them waiting."""
AT_A_TIME: dict[Subject, int] = {"message": 4, "bundle": 1}
"""Offers that a device is told of before one of them is settled."""
MOST_PENDING = 64
"""Words of one device that are not on disk yet."""
_KINDS: dict[Subject, pb.OfferKind] = {
    "message": pb.OFFER_KIND_FEDERATED_MESSAGE,
    "bundle": pb.OFFER_KIND_BUNDLE,
}


class Line:
    """One device's stream, as far as offers are concerned."""

    def __init__(self, hello: pb.Hello, session: Session, outbox: Outbox) -> None:
        self.node = node_id(hello.device)
        self.session = session
        self.outbox = outbox
        self.told: set[int] = set()
        """Numbers of the offers that it was told of and that are open, as far as is known."""
        self.refused: set[int] = set()
        """Of those that it refused, the ones of which that is not on disk yet: a look from before still finds them."""
        self.pending = 0
        subjects: tuple[Subject, ...] = ("message", "bundle") if FEDERATED in hello.capabilities else ("bundle",)
        self.subjects = subjects
        self._hello = hello

    def device(self, *, connected: bool) -> Device:
        """What is noted of it."""
        hello = self._hello
        return Device(
            self.node, hello.device, connected, tuple(hello.capabilities), hello.bundle_id, hello.agent_version, 0
        )


class Offers:
    """The lines to all connected devices."""

    def __init__(self, mailbox: Mailbox, disk: Disk, metrics: Metrics) -> None:
        self._mailbox = mailbox
        self._disk = disk
        self._metrics = metrics
        self._lines: defaultdict[int, list[Line]] = defaultdict(list)
        self._seen = 0

    def lines(self, node: int) -> list[Line]:
        """The streams of a device."""
        return self._lines.get(node, [])

    @property
    def federated(self) -> int:
        """Devices that take messages."""
        return sum(any("message" in line.subjects for line in lines) for lines in self._lines.values())

    def connect(self, hello: pb.Hello, session: Session, outbox: Outbox) -> Line:
        """A device opened a stream."""
        line = Line(hello, session, outbox)
        self._lines[line.node].append(line)
        self._disk.then(partial(self._mailbox.connected, line.device(connected=True)))
        self.refresh([line.node])
        return line

    def disconnect(self, line: Line) -> None:
        """A stream ended."""
        lines = self._lines[line.node]
        lines.remove(line)
        if not lines:
            del self._lines[line.node]
            self._disk.then(partial(self._mailbox.connected, line.device(connected=False)))

    def replied(self, line: Line, reply: pb.OfferReply) -> None:
        """A device accepted or refused an offer; one that it was not told of is ignored."""
        if reply.offer not in line.told:
            return
        if reply.accepted:
            self._note(line, partial(self._mailbox.accepted, reply.offer, line.node))
        else:
            line.told.discard(reply.offer)
            line.refused.add(reply.offer)
            self._metrics.count_offer("refused")
            self._note(
                line,
                partial(self._mailbox.refused, reply.offer, line.node, reply.reason[:1000]),
                lambda: line.refused.discard(reply.offer),
            )
            self.refresh([line.node])

    def noticed(self, line: Line, notice: pb.BundleNotice) -> None:
        """A device said what became of a bundle; raises :class:`Refusal` if it says too much."""
        facts = (line.node, notice.bundle_id[:32], int(notice.state), notice.detail[:1000])
        self._note(line, partial(self._mailbox.notice, *facts))

    def look(self) -> None:
        """Tell devices of what is new in the mailbox, because a bell rang or it is time to look."""
        self._disk.then(partial(self._mailbox.nodes_with_offers, self._seen), self._found)

    def refresh(self, nodes: Iterable[int]) -> None:
        """Tell these devices of what they were not told of."""
        for node in nodes:
            for line in self.lines(node):
                self._disk.then(partial(self._open_offers, line), partial(self._tell, line))

    def _found(self, news: tuple[int, set[int]]) -> None:
        self._seen, nodes = news
        told = {node for node, lines in self._lines.items() if any(line.told for line in lines)}
        self.refresh(node for node in nodes | told if node in self._lines)

    def _open_offers(self, line: Line) -> list[Offered]:
        return [
            one
            for subject in line.subjects
            for one in self._mailbox.open_offers(line.node, subject, AT_A_TIME[subject])
        ]

    def _tell(self, line: Line, offers: list[Offered]) -> None:
        there = [one for one in offers if one.number not in line.refused]
        new = [one for one in there if one.number not in line.told]
        line.told = {one.number for one in there}
        now_ms = int(time.time() * 1e3)
        for one in new:
            self._metrics.count_offer("made")
            line.outbox.put(pb.ServerMessage(offer=_offer(one, now_ms)))

    def _note(self, line: Line, work: Callable[[], None], then: Callable[[], None] = lambda: None) -> None:
        if line.pending >= MOST_PENDING:
            raise Refusal(pb.STATUS_BUSY, f"{MOST_PENDING} words about offers and bundles are not on disk yet")
        line.pending += 1
        self._disk.then(work, partial(self._noted, line, then))

    @staticmethod
    def _noted(line: Line, then: Callable[[], None], _: Any) -> None:  # noqa: ANN401 - nothing comes of it
        line.pending -= 1
        then()


def _offer(one: Offered, now_ms: int) -> pb.Offer:
    return pb.Offer(
        offer=one.number,
        kind=_KINDS[one.subject],
        content_sha256=one.sha256,
        content_bytes=one.size,
        bundle_id=one.bundle_id,
        round=int(one.group) if one.group.isascii() and one.group.isdecimal() and len(one.group) < 19 else 0,
        valid_for_ms=max(one.expires_unix_ms - now_ms, 1),
        envelope=one.envelope,
    )
