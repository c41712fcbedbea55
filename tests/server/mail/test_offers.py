"""What a device is told of, where looks at the mailbox and words about it cross."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from headwater.protos import edge_pb2 as pb
from headwater.server.mail.disk import Disk
from headwater.server.mail.mailbox import Mailbox
from headwater.server.mail.offers import AT_A_TIME, FEDERATED, Offers
from headwater.server.metrics import Metrics
from headwater.server.session import Outbox, Session
from tests.server.mail.couriers import CAM, put


class ByHand:
    """A disk that works when it is told to: the work first, and what is made of it later, as between two threads."""

    def __init__(self) -> None:
        self._queue: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []
        self._done: list[Callable[[], None]] = []

    def then(self, work: Callable[[], Any], take: Callable[[Any], None] = lambda _: None) -> None:
        self._queue.append((work, take))

    def work(self) -> None:
        """Do what is queued; nobody hears of it yet."""
        while self._queue:
            work, take = self._queue.pop(0)
            found = work()
            self._done.append(lambda take=take, found=found: take(found))

    def tell(self) -> None:
        """Have the event loop take what came of it."""
        while self._done:
            self._done.pop(0)()

    def all(self) -> None:
        while self._queue or self._done:
            self.work()
            self.tell()


class Told(list[int]):
    """In the place of a stream: the numbers of the offers that a device was told of."""

    def put(self, message: pb.ServerMessage) -> None:
        self.append(message.offer.offer)


def test_a_look_from_before_a_refusal_does_not_tell_of_it_again(box: Mailbox) -> None:
    disk, told, most = ByHand(), Told(), AT_A_TIME["message"]
    for number in range(most + 2):
        put(box, str(number))
    offers = Offers(box, cast("Disk", disk), Metrics())
    hello = pb.Hello(device="cam", capabilities=[FEDERATED])
    line = offers.connect(hello, cast("Session", None), cast("Outbox", told))
    assert line.node == CAM
    disk.all()
    assert told == list(range(1, most + 1))
    offers.refresh([CAM])
    disk.work()  # a bell rang: it was looked, and the first offer was still open
    offers.replied(line, pb.OfferReply(offer=1, accepted=False, reason="busy"))
    disk.all()
    assert told == list(range(1, most + 2)), "the next one follows, and none comes twice"
    assert not line.refused
    assert 1 not in line.told
