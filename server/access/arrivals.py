"""Connections that never come to a call: no certificate, one of another authority or past its time, or nobody there.

gRPC refuses these inside TLS' handshake and tells nobody. But it asks for the server's certificate when a handshake
begins (credentials.py), and every call says which address and port it comes from. So the handshakes that began, less
the connections that a call came on, are those that failed; they are counted when the time for a handshake is over.

Nothing tells a connection from the next one of the same address and port. One that has had no call for as long as gRPC
leaves such connections open is over; who comes back from the same port before that counts as one that failed.
"""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwater.server.access.options import HANDSHAKE_S, IDLE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE_S = HANDSHAKE_S + 10.0
"""From a connection's opening to its first call; who takes longer counts as failed until it calls."""
OVER_S = 2 * IDLE_S + 10.0
"""After the last call on a connection; gRPC looks every `IDLE_S` whether there was one since it looked before."""


@dataclass(slots=True)
class _Known:
    """A connection that a call came on."""

    calls: int = 0
    """That are open."""
    ended_s: float = 0.0
    """When the last of them ended."""


class Arrivals:
    """Counts them; `clock` gives monotonic seconds. :meth:`begin` is for any thread, all else for the event loop's."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._begun: deque[float] = deque()
        self._known: dict[str, _Known] = {}
        self._due = 0
        """Handshakes whose time is over, less the connections that came to a call."""
        self._told = 0

    def begin(self) -> None:
        """A handshake begins."""
        self._begun.append(self.clock())

    @contextmanager
    def calling(self, peer: str) -> Iterator[None]:
        """A call from this address and port is open."""
        known = self._known.get(peer)
        if known is None:
            known = self._known[peer] = _Known()
            self._due -= 1
        known.calls += 1
        try:
            yield
        finally:
            known.calls -= 1
            known.ended_s = self.clock()

    def failed(self) -> int:
        """How many connections more than were told of before have ended without a call."""
        now_s = self.clock()
        while self._begun and self._begun[0] + PATIENCE_S <= now_s:
            self._begun.popleft()
            self._due += 1
        over = [peer for peer, one in self._known.items() if not one.calls and one.ended_s + OVER_S <= now_s]
        for peer in over:
            del self._known[peer]
        more = max(0, self._due - self._told)
        self._told += more
        return more
