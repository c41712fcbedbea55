"""Who the device is: for each server that it was enrolled at, a key, a certificate, and the authority to know it by.

    STATE/identity/<first 16 hex digits of the authority's pin>.json   0600, replaced in one step
        {"device": ..., "servers": [...], "renew": unix seconds, "authority": PEM, "key": PEM, "certificate": PEM}

The key is made here and never leaves. A server is known by its authority and not by its address, so it may move; which
identity is shown where goes by the address all the same:

    an address that the device was enrolled at     that identity
    loopback, unix:                                none: without TLS, to this machine or through a tunnel that it ends
    any other, and there is one identity           that one: the same server under another name, or one that it named
    any other                                      an error that says how to enrol there

`cryptography` is loaded only where a device has an identity: it takes as long as a tenth of all that the agent loads.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import logging
import os
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.compression import keyfiles
from headwater.compression.enrolment import pin_of
from headwater.compression.errors import IdentityError
from headwater.device.channel import open_channel

if TYPE_CHECKING:
    from collections.abc import Iterator

    import grpc.aio
    from cryptography import x509

FOLDER = "identity"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Identity:
    """A device at one server."""

    device: str
    """What its certificate calls it."""
    servers: tuple[str, ...]
    """Addresses that it was enrolled at, host:port."""
    renew: float
    """When to ask for the next certificate, unix seconds."""
    authority: str
    """The server's certificate authority, PEM."""
    certificate: str
    """PEM."""
    key: str = field(repr=False)
    """Private, PEM."""

    @cached_property
    def name(self) -> str:
        """Of its file."""
        return pin_of(_certificate(self.authority)).hex()[:16]

    @cached_property
    def expires(self) -> datetime:
        """When the certificate does."""
        return _certificate(self.certificate).not_valid_after_utc

    def channel(self, server: str) -> grpc.aio.Channel:
        """An encrypted channel, on which both ends prove who they are."""
        return open_channel(server, (self.authority.encode(), self.key.encode(), self.certificate.encode()))


class Identities:
    """All that are in a folder; read anew each time, because other processes of the device renew them too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._said: set[str] = set()

    @classmethod
    def under(cls, state: Path | None) -> Identities:
        """Those of a device's state folder; of the user's own, ~/.local/state/headwater, if it has none."""
        own = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "headwater"
        return cls((own if state is None else state) / FOLDER)

    def all(self) -> list[Identity]:
        """Every one; raises :class:`IdentityError` for a file that is damaged, or that others can read."""
        return [_read(path) for path in sorted(self.folder.glob("*.json"))]

    def of(self, server: str) -> Identity | None:
        """What to show to a server, see above; raises :class:`IdentityError`."""
        every = self.all()
        own = [one for one in every if server in one.servers]
        if own:
            return own[-1]
        if is_here(server):
            return None
        if len(every) == 1:
            return every[0]
        why = f"it has {len(every)} identities, none for that address" if every else f"{self.folder} has no identity"
        raise IdentityError(
            f"the device is not enrolled at {server}: {why}; ask for a token at the server, `headwater server devices "
            f"token`, and run `headwater device enroll --server {server}` here"
        )

    def channel(self, server: str) -> grpc.aio.Channel:
        """A channel to a server; raises :class:`IdentityError` where the device would have to be enrolled first."""
        identity = self.of(server)
        if identity is None:
            return open_channel(server)
        self._warn(identity)
        return identity.channel(server)

    def _warn(self, identity: Identity) -> None:
        """Say once that a certificate's time is over; it is shown all the same, for this clock may be the wrong one."""
        if identity.expires < datetime.now(UTC) and identity.certificate not in self._said:
            self._said.add(identity.certificate)
            _log.error(
                "the certificate of %s expired on %s by this machine's clock; enrol the device again, or set the clock",
                *(identity.device, f"{identity.expires:%Y-%m-%d}"),
            )

    def name_at(self, server: str) -> str:
        """What the device is called at a server; empty where no certificate says so."""
        identity = self.of(server)
        return "" if identity is None else identity.device

    def save(self, identity: Identity) -> None:
        """Write an identity, in place of the one at the same server; raises :class:`IdentityError`."""
        keyfiles.make_folder(self.folder)
        fields = {key: value for key, value in vars(identity).items() if key in Identity.__dataclass_fields__}
        text = json.dumps(fields, indent=1) + "\n"
        path = self.folder / f"{identity.name}.json"
        keyfiles.write(path, text.encode(), keyfiles.PRIVATE_MODE)
        self._leave_to_owner(path)

    def take_over(self, identity: Identity) -> None:
        """Write the identity of a new enrolment, whose addresses are no other's from now on.

        A server that has another authority now is enrolled at again by its old address: what was there for it goes.
        Raises :class:`IdentityError`.
        """
        self.save(identity)
        for other in self.all():
            left = tuple(server for server in other.servers if server not in identity.servers)
            if other.name == identity.name or left == other.servers:
                continue
            if left:
                self.save(replace(other, servers=left))
            else:
                (self.folder / f"{other.name}.json").unlink()

    def _leave_to_owner(self, path: Path) -> None:
        """Let a service that runs as another user have what root enrolled for it: whoever the state belongs to."""
        owner = self.folder.parent.stat()
        if os.geteuid() == 0 and owner.st_uid != 0:
            os.chown(self.folder, owner.st_uid, owner.st_gid)
            os.chown(path, owner.st_uid, owner.st_gid)

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Keep other processes from changing identities; False, and nothing is kept, if one is about it.

        Raises :class:`IdentityError` where the disk takes no lock file.
        """
        keyfiles.make_folder(self.folder)
        path = self.folder / ".lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, keyfiles.PRIVATE_MODE)
        except OSError as error:
            raise IdentityError(f"{path} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
        finally:
            os.close(descriptor)


def is_here(server: str) -> bool:
    """Whether an address is this very machine's."""
    if server.startswith("unix:"):
        return True
    host = server.rpartition(":")[0].removeprefix("[").removesuffix("]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _certificate(pem: str) -> x509.Certificate:
    from cryptography import x509  # noqa: PLC0415 - see above

    return x509.load_pem_x509_certificate(pem.encode())


def _read(path: Path) -> Identity:
    data = keyfiles.read_private(path)
    try:
        fields = json.loads(data)
        return Identity(**{**fields, "servers": tuple(fields["servers"])})
    except (ValueError, TypeError, KeyError) as error:
        raise IdentityError(f"{path} is damaged: {error}; remove it, and enrol the device again") from error
