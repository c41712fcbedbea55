"""The server's TLS: what its listeners are told, and handshakes at the same time."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headwater.compression.enrolment import SERVER_NAME
from headwater.server.access.authority import SERVER_DAYS, Authority
from headwater.server.access.credentials import ServerCredentials

LISTENER = """
import asyncio, sys
from pathlib import Path
import grpc
from headwater.server.access.authority import Authority
from headwater.server.access.credentials import ServerCredentials

async def main():
    server = grpc.aio.server()
    credentials = ServerCredentials(Authority.open(Path(sys.argv[1])))
    port = server.add_secure_port("127.0.0.1:0", credentials.one_sided())
    await server.start()
    print(port, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_each_listener_is_told_of_a_certificate_once(tmp_path: Path) -> None:
    """gRPC takes every answer but None for a new certificate, and frees the old one under handshakes that run."""
    now = datetime(2030, 1, 1, tzinfo=UTC)
    credentials = ServerCredentials(Authority.open(tmp_path), now=lambda: now)
    mutual, one_sided = credentials._news(mutual=True), credentials._news(mutual=False)
    assert None not in {mutual(), one_sided()}
    now -= timedelta(days=400)  # a clock that is set back
    assert [mutual(), one_sided(), mutual()] == [None, None, None]
    now += timedelta(days=400 + SERVER_DAYS / 2)
    assert None not in {mutual(), one_sided()}
    assert [mutual(), one_sided()] == [None, None]


@pytest.mark.slow
def test_handshakes_at_the_same_time_end_no_server(tmp_path: Path) -> None:
    """With the certificate told anew each time, 300 to 1,000 of them did."""
    command = [sys.executable, "-c", LISTENER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listener:
        assert listener.stdout is not None
        port = int(listener.stdout.readline())
        context = ssl.create_default_context(cadata=Authority.open(tmp_path).pem.decode())
        context.set_alpn_protocols(["h2"])

        def shake_hands(_: int) -> str | None:
            with (
                socket.create_connection(("127.0.0.1", port), 60) as plain,
                context.wrap_socket(plain, server_hostname=SERVER_NAME) as secure,
            ):
                return secure.selected_alpn_protocol()

        with ThreadPoolExecutor(16) as pool:
            assert set(pool.map(shake_hands, range(3000))) == {"h2"}
        assert listener.poll() is None
        listener.kill()
