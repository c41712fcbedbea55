"""Tells systemd that the agent is up and gets on, in the datagrams of sd_notify(3); no library is needed for them.

    READY=1            the bundle is loaded, and pictures are taken from now on
    STATUS=...         a line for ``systemctl status``
    WATCHDOG=1         it gets on: systemd ends and restarts a service that does not say so for its WatchdogSec
    WATCHDOG=trigger   it does not, and knows it: systemd need not wait any longer
    STOPPING=1         a signal came, or the source has ended

A watchdog that is fed by a timer proves that timers work. This one is fed when the agent got on since it was fed last:

- the event loop turned, for the feeding is a task on it;
- the head's thread did a piece of work that was handed to it just now (an inference that hangs holds it up);
- `progress.py` has nothing to say against source and frames.

Whether a server answers is no part of it: a device whose link is down gets on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import MutableMapping

STATUS_S = 10.0
"""Between two lines of status where no watchdog is asked for."""
_A_WATCHDOG = 4.0
"""Feedings in the time that it waits: one may be lost in a busy moment."""

_log = logging.getLogger(__name__)


class Notifier:
    """The socket that systemd listens on; what it is told is lost where nobody does, as datagrams are."""

    def __init__(self, address: str) -> None:
        """``address`` as NOTIFY_SOCKET has it: a path, or ``@`` and an abstract name."""
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def tell(self, **state: str) -> None:
        """Send assignments such as ``READY="1"``, in one datagram."""
        text = "\n".join(f"{key}={value}" for key, value in state.items())
        with contextlib.suppress(OSError):  # full or gone: the next one tells it, or nobody wants to know
            self._socket.sendto(text.encode(), self._address)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class Runs(Protocol):
    """What is watched: `running.py` has it of agent, feed and screen."""

    async def turn(self) -> None:
        """Return when the head's thread has done what was handed to it before."""

    def stuck(self) -> str:
        """What does not get on; empty where all does."""

    def status(self) -> str:
        """One line for people."""


class Watchdog:
    """``async with Watchdog.of(os.environ, runs): ...``: ready when it is entered, stopping when it is left."""

    def __init__(self, notifier: Notifier | None, limit_s: float | None, runs: Runs) -> None:
        """Prepare to feed.

        Args:
            notifier: None where nobody listens: then nothing is done at all.
            limit_s: how long systemd waits to be fed; None where it does not wait for that.
            runs: what is watched.
        """
        self._notifier = notifier
        self._every_s = STATUS_S if limit_s is None else limit_s / _A_WATCHDOG
        self._feeds = limit_s is not None
        self._runs = runs
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, environ: MutableMapping[str, str], runs: Runs) -> Self:
        """As systemd's variables ask for it; they are taken away, for they are not meant for processes begun by us."""
        address = environ.pop("NOTIFY_SOCKET", "")
        limit_us, whose = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        ours = limit_us.isdecimal() and int(limit_us) > 0 and whose in {"", str(os.getpid())}
        return cls(Notifier(address) if address else None, int(limit_us) / 1e6 if ours else None, runs)

    async def __aenter__(self) -> Self:
        if self._notifier is not None:
            self._notifier.tell(READY="1", STATUS=self._runs.status())
            self._task = asyncio.create_task(self._feed(self._notifier), name="headwater-watchdog")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._notifier is None or self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._notifier.tell(STOPPING="1", STATUS=self._runs.status())
        self._notifier.close()

    async def _feed(self, notifier: Notifier) -> None:
        while True:
            await self._runs.turn()
            why = self._runs.stuck()
            food = ({"WATCHDOG": "trigger"} if why else {"WATCHDOG": "1"}) if self._feeds else {}
            if why:
                _log.error("%s; systemd is asked to start the agent again", why)
            notifier.tell(**food, STATUS=why or self._runs.status())
            await asyncio.sleep(self._every_s)
