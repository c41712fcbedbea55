"""Which server is tried next: where a device begins, where it goes when that fails, and where it stays.

A device begins at the first of its servers in an order of its own: highest random weight first (Thaler and Ravishankar,
"A name-based mapping scheme for rendezvous", 1998), the hash of its name and the address. So a fleet spreads over the
servers without anybody counting, and when one fails, its devices spread over the others.

    a connection breaks that had worked    the same server again, once: it was the radio more often than the server
    it fails too, or never worked          the next server at once, until all have been tried; only then a pause
    a server works                         the device stays there; it does not go back to where it began
    a server says that it stops            the servers that it names first, then the others, then a pause

Plain state; link.py has the sockets and the pauses.
"""

from __future__ import annotations

import re
from collections import deque
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ADDRESS = re.compile(r"unix:.+|.+:\d{1,5}")
MOST_NAMED = 64
"""Servers of one notice that are listened to."""


def ranked(servers: Iterable[str], device: str) -> list[str]:
    """The servers, each once, in the device's own order."""
    return sorted(set(servers), key=lambda server: sha256(f"{device}\0{server}".encode()).digest(), reverse=True)


class Route:
    """The servers of one device."""

    def __init__(self, servers: Sequence[str], device: str) -> None:
        """``servers``: host:port each, at least one; ``device``: its name."""
        self._device = device
        self._own = ranked(servers, device)
        self._named: list[str] = []
        self._home = self.current = self._own[0]
        self._plan: deque[str] = deque()
        self._leaving = False

    @property
    def known(self) -> list[str]:
        """All servers: those that a stopping one named, then the device's own."""
        return [*self._named, *(server for server in self._own if server not in self._named)]

    def next(self) -> str:
        """Take the server to try now."""
        if not self._plan:
            self._plan.extend([self._home, *self._others(self._home)])
        self.current = self._plan.popleft()
        return self.current

    @property
    def pauses(self) -> bool:
        """Whether to wait before :meth:`next`: it would be the same server again, or all have been tried."""
        return not self._plan or self._plan[0] == self.current

    def stopping(self, servers: Iterable[str]) -> None:
        """The server at hand stops, and names others to go to."""
        named = [server for server in servers if ADDRESS.fullmatch(server) and server != self.current]
        self._named = ranked(named[:MOST_NAMED], self._device)
        self._plan = deque(self._others(self.current))
        self._home = self._plan[0] if self._plan else self.current
        self._leaving = True

    def ended(self, *, worked: bool) -> None:
        """A connection, or the attempt to make one, has ended; ``worked``: something had been answered on it."""
        leaving, self._leaving = self._leaving, False
        if worked and not leaving:
            self._home = self.current
            others = self._others(self.current)
            self._plan = deque([self.current, *others] if others else [])

    def _others(self, server: str) -> list[str]:
        return [other for other in self.known if other != server]
