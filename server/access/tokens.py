"""Enrolment tokens: made by an operator, good for one device and a quarter of an hour.

The secret has 128 random bits, so that its plain SHA-256 says nothing about it. A token is spent in the same
transaction that takes the certificate in: of two who come with it, one is refused. Only the one who has it already may
come again, with the same key, because the answer may have been lost on the way: it gets the same certificate.
"""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from headwater.compression.enrolment import SECRET_BYTES, check_name
from headwater.compression.errors import IdentityError
from headwater.server.access.authority import Issued

if TYPE_CHECKING:
    import sqlite3

    from headwater.server.access.authority import Authority
    from headwater.server.access.register import Register

LIFE_S = 15 * 60.0
KEPT_S = 24 * 3600.0
"""So long a token is remembered after its end, to say why it is refused."""


class TokenError(IdentityError):
    """A token is wrong, expired or used; nothing was signed."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        """One word."""


def mint(register: Register, name: str | None = None, now: float | None = None) -> bytes:
    """Make a token; returns its secret, 16 bytes, which is kept nowhere.

    ``name`` is that of the device, and may be one that is there: that is enrolled again then, and what it had ends.
    Without a name the device brings its own, which must be new. Raises :class:`IdentityError` for a bad name.
    """
    now = time.time() if now is None else now
    if name is not None:
        check_name(name)
    secret = secrets.token_bytes(SECRET_BYTES)
    with register.change() as db:
        db.execute("DELETE FROM tokens WHERE expires < ?", (now - KEPT_S,))
        db.execute("INSERT INTO tokens (hash, name, expires) VALUES (?, ?, ?)", (_hash(secret), name, now + LIFE_S))
    return secret


def spend(
    register: Register,
    authority: Authority,
    secret: bytes,
    request: bytes,
    proposed: str,
    days: float,
    now: float | None = None,
) -> Issued:
    """Sign a device's request for a token.

    Args:
        register: has the tokens, and takes the certificate in.
        authority: signs it.
        secret: of the token.
        request: see :meth:`Authority.sign_device`.
        proposed: what the device would like to be called; the token's own name goes before it.
        days: how long the certificate is valid.
        now: unix seconds.

    Raises:
        TokenError: the token is wrong, expired or used.
        IdentityError: the request or the name is bad; the token can be used again.
    """
    now = time.time() if now is None else now
    with register.change() as db:
        found = db.execute("SELECT name, expires, used, serial FROM tokens WHERE hash = ?", (_hash(secret),)).fetchone()
        if found is None:
            raise TokenError("wrong_token", "no such token was made here, or it was withdrawn; ask for another one")
        given, expires, used, serial = found
        if used is not None:
            return _again(db, serial, request)
        if now >= expires:
            raise TokenError("expired_token", f"the token has expired: it was good for {LIFE_S / 60:g} minutes")
        if given is None and register.has(proposed):
            raise IdentityError(
                f"there is a device {proposed} already; give this one another name with --name, or ask for a token "
                f"made with --name {proposed}, which takes the other's place"
            )
        issued = authority.sign_device(request, given or proposed, days, datetime.fromtimestamp(now, UTC))
        _enter(register, db, issued, secret, now)
    return issued


def _enter(register: Register, db: sqlite3.Connection, issued: Issued, secret: bytes, now: float) -> None:
    register.enter(issued.device, now)
    register.add(issued)
    db.execute("UPDATE tokens SET used = ?, serial = ? WHERE hash = ?", (now, issued.serial, _hash(secret)))


def _again(db: sqlite3.Connection, serial: str, request: bytes) -> Issued:
    """The certificate that a token was spent on, for the holder of its key as long as nobody has used it."""
    row = db.execute(
        "SELECT name, pem, fingerprint, issued, expires, used, ended FROM certificates WHERE serial = ?",
        (serial,),
    ).fetchone()
    name, pem, fingerprint, issued, expires, used, ended = row
    if used is not None or ended is not None or not _same_key(pem, request):
        raise TokenError("used_token", f"the token was used already, for {name}; ask for another one")
    return Issued(
        name, serial, pem, fingerprint, datetime.fromtimestamp(issued, UTC), datetime.fromtimestamp(expires, UTC)
    )


def _same_key(pem: bytes, request: bytes) -> bool:
    try:
        asked = x509.load_pem_x509_csr(request).public_key()
    except ValueError:
        return False
    return _der(asked) == _der(x509.load_pem_x509_certificate(pem).public_key())


def _der(key: object) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return encoded


def _hash(secret: bytes) -> bytes:
    return sha256(secret).digest()
