"""Connections that are not to get through TLS, by Python's own TLS: one is one, where a channel of gRPC tries again."""

from __future__ import annotations

import socket
import ssl
import tempfile
from typing import TYPE_CHECKING

from headwater.compression.enrolment import SERVER_NAME
from tests.server.access.material import Member

if TYPE_CHECKING:
    from headwater.server.access.authority import Authority, Pair

TIMEOUT_S = 30.0


def fail(address: tuple[str, int], authority: Authority, shown: Pair | Member | None) -> None:
    """Shake hands with a certificate that is refused, or none, and wait until the server has ended the connection."""
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.set_alpn_protocols(["h2"])
    pair = shown.pair if isinstance(shown, Member) else shown
    if pair is not None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(pair.key + pair.certificate)
            file.flush()
            context.load_cert_chain(file.name)
    with socket.create_connection(address, TIMEOUT_S) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=SERVER_NAME) as secure:
                data = secure.recv(1)  # in TLS 1.3 the server refuses after the client's last word
        except (ssl.SSLError, ConnectionError):
            return
    assert not data, "the server speaks to somebody whom it ought to refuse"


def hang_up(address: tuple[str, int]) -> None:
    """Connect, say nothing, and go."""
    socket.create_connection(address, TIMEOUT_S).close()
