"""Certificates for a whole fleet at once: what `headwater device enroll` brings about, without five hundred tokens.

Each server has an authority of its own, so a device that knows both has two identities. One in ten is to renew its
certificate as soon as it is connected, so that renewals meet the faults as well.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwater.device.access.identity import Identities, Identity
from headwater.device.access.keys import make_key, signing_request
from headwater.server.access.authority import Authority
from headwater.server.access.register import Register

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

DAYS = 30.0
RENEWING = 10


@dataclass(frozen=True)
class Newcomer:
    """A device that is to be let in at a server."""

    name: str
    state: Path
    """The device's own folder."""
    address: str
    """By which it will know the server."""


def admit(server: Path, newcomers: Iterable[Newcomer]) -> None:
    """Let devices in; ``server`` is the server's state folder, of one that runs or of one that does not."""
    authority, now = Authority.open(server), time.time()
    with Register.open(server) as register, register.change():
        for number, one in enumerate(newcomers):
            key = make_key()
            issued = authority.sign_device(signing_request(key), one.name, DAYS)
            register.enter(one.name, now)
            register.add(issued)
            renew = 0.0 if number % RENEWING == 0 else now + DAYS * 86400 / 2
            identity = Identity(one.name, (one.address,), renew, authority.pem.decode(), issued.pem.decode(), key)
            Identities.under(one.state).save(identity)
