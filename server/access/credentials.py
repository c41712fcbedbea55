"""TLS at the server: a certificate that is made when the server starts, and anew while it runs on.

gRPC asks for the certificate at each handshake, and takes whatever it is given for a new one: it then frees what other
threads may just be shaking hands with (https://github.com/grpc/grpc/issues/36693), and under a few hundred connections
a minute the process ends by a signal. So each listener is told of a certificate once, and of nothing between.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import TYPE_CHECKING

import grpc

from headwater.server.access.authority import SERVER_DAYS

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.server.access.authority import Authority


class ServerCredentials:
    """What both listeners of a server answer handshakes with.

    Args:
        authority: signs the server's certificates.
        begun: called from any thread when a device's handshake begins.
        now: the time of day.
    """

    def __init__(
        self,
        authority: Authority,
        begun: Callable[[], None] = lambda: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._authority = authority
        self._begun = begun
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
        news = self._news(mutual=mutual)
        first = news()
        assert first is not None, "the first is always new"

        def asked() -> grpc.ServerCertificateConfiguration | None:
            if mutual:
                self._begun()
            return news()

        # The stubs know no None, which is gRPC's word for no news.
        return grpc.dynamic_ssl_server_credentials(first, asked, require_client_authentication=mutual)  # type: ignore[arg-type]

    def _news(self, *, mutual: bool) -> Callable[[], grpc.ServerCertificateConfiguration | None]:
        """What tells one listener of a certificate that it has not been told of; None if there is none."""
        told: grpc.ServerCertificateConfiguration | None = None

        def news() -> grpc.ServerCertificateConfiguration | None:
            nonlocal told
            with self._lock:
                current = self._current(mutual=mutual)
                told, before = current, told
            return None if current is before else current

        return news

    def _current(self, *, mutual: bool) -> grpc.ServerCertificateConfiguration:
        # A clock that was set back needs no other: certificates begin long before they were made.
        if self._now() >= self._made + timedelta(days=SERVER_DAYS / 2):
            self._make()
        return self._mutual if mutual else self._one_sided

    def _make(self) -> None:
        self._made = self._now()
        made = self._authority.make_server(self._made)
        chain = [(made.key, made.certificate)]
        self._mutual = grpc.ssl_server_certificate_configuration(chain, self._authority.pem)
        self._one_sided = grpc.ssl_server_certificate_configuration(chain)
