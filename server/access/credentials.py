"""TLS at the server: a certificate that is made when the server starts, and anew while it runs on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING

import grpc

from headwater.server.access.authority import SERVER_DAYS

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.server.access.authority import Authority


class ServerCredentials:
    """What both listeners of a server answer handshakes with."""

    def __init__(self, authority: Authority, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._authority = authority
        self._now = now
        self._lock = Lock()  # gRPC asks from threads of its own, once a handshake
        self._make()

    def mutual(self) -> grpc.ServerCredentials:
        """For devices: no handshake succeeds without a certificate that the authority signed."""
        return self._credentials(mutual=True)

    def one_sided(self) -> grpc.ServerCredentials:
        """For those who have no certificate yet."""
        return self._credentials(mutual=False)

    def _credentials(self, *, mutual: bool) -> grpc.ServerCredentials:
        current = partial(self._current, mutual=mutual)
        return grpc.dynamic_ssl_server_credentials(current(), current, require_client_authentication=mutual)

    def _current(self, *, mutual: bool) -> grpc.ServerCertificateConfiguration:
        with self._lock:
            if not self._made <= self._now() < self._made + timedelta(days=SERVER_DAYS / 2):
                self._make()
            return self._mutual if mutual else self._one_sided

    def _make(self) -> None:
        self._made = self._now()
        made = self._authority.make_server(self._made)
        chain = [(made.key, made.certificate)]
        self._mutual = grpc.ssl_server_certificate_configuration(chain, self._authority.pem)
        self._one_sided = grpc.ssl_server_certificate_configuration(chain)
