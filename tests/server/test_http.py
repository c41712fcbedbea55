from __future__ import annotations

import asyncio

import pytest

from headwater.server import http
from headwater.server.metrics import Metrics
from tests import tiny
from tests.server.edges import TIMEOUT_S, Talk, edge


async def fetch(address: str | None, request: bytes) -> tuple[str, bytes]:
    """Send raw bytes; the status line and the body."""
    assert address is not None
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        async with asyncio.timeout(TIMEOUT_S):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    return head.split(b"\r\n")[0].decode(), body


async def metrics(address: str | None, batches: int) -> dict[str, str]:
    """The metrics once so many batches are counted, which happens just after their answers have left."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            status, body = await fetch(address, get("/metrics?x=1"))
            assert status == "HTTP/1.0 200 OK"
            lines = dict(line.rsplit(" ", 1) for line in body.decode().splitlines() if not line.startswith("#"))
            if lines["headwater_batch_mean_payload_bytes_count"] == f"{batches:.1f}":
                return lines


def get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


async def test_the_pages_say_how_the_server_is_and_what_it_did() -> None:
    async with edge(http="127.0.0.1:0", queue=1) as server:
        address = server.addresses.http
        async with Talk(server) as talk:
            for number in (1, 2):
                await talk.frame(number, mode=15)
                await talk.answer()
            await talk.frame(3, data=b"nonsense")
            await talk.answer()
            lines = await metrics(address, batches=2)
        payload = sum(len(tiny.frame(tiny.bundle(), seed, 15).payload) for seed in (1, 2))
        assert lines['headwater_requests_total{call="stream",outcome="ok"}'] == "2.0"
        assert lines['headwater_requests_total{call="stream",outcome="invalid_frame"}'] == "1.0"
        assert float(lines["headwater_payload_bytes_total"]) == payload
        assert lines["headwater_batch_frames_sum"] == "2.0"
        assert lines["headwater_connected_devices"] == "1.0"
        assert lines["headwater_queue_depth"] == "0.0"
        for stage in ("queue", "decode", "run"):
            assert lines[f'headwater_stage_seconds_count{{stage="{stage}"}}'] == "2.0"
        assert await fetch(address, get("/healthz")) == ("HTTP/1.0 200 OK", b"ok\n")
        assert await fetch(address, get("/readyz")) == ("HTTP/1.0 200 OK", b"ready\n")


async def test_a_stopping_server_is_healthy_but_not_ready() -> None:
    async with edge(http="127.0.0.1:0", grace_s=20.0) as server, Talk(server) as talk:
        stopping = asyncio.create_task(server.server.stop())
        assert (await talk.read()).WhichOneof("kind") == "drain"
        assert (await fetch(server.addresses.http, get("/readyz")))[0].startswith("HTTP/1.0 503")
        assert (await fetch(server.addresses.http, get("/healthz")))[0] == "HTTP/1.0 200 OK"
        await talk.goodbye()
        await asyncio.wait_for(stopping, TIMEOUT_S)


async def test_head_has_no_body() -> None:
    async with edge(http="127.0.0.1:0") as server:
        assert await fetch(server.addresses.http, get("/healthz", "HEAD")) == ("HTTP/1.0 200 OK", b"")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/nowhere"), 404),
        (get("/metrics", "POST"), 405),
        (b"hello\r\n\r\n", 400),
        (b"\xff\xfe\r\n\r\n", 400),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", 431),
    ],
)
async def test_other_requests_get_an_error(request_: bytes, status: int) -> None:
    async with edge(http="127.0.0.1:0") as server:
        assert (await fetch(server.addresses.http, request_))[0].split(" ")[1] == str(status)


async def test_a_client_that_says_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "TIMEOUT_S", 0.01)
    async with edge(http="127.0.0.1:0") as server:
        assert await fetch(server.addresses.http, b"GET /metr") == ("", b"")


async def test_more_connections_than_allowed_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 0)
    async with edge(http="127.0.0.1:0") as server:
        assert await fetch(server.addresses.http, b"") == ("", b"")


def test_every_outcome_is_there_from_the_start() -> None:
    text = Metrics().text().decode()
    for outcome in ("ok", "busy", "expired", "cancelled", "draining", "internal", "unknown_bundle"):
        assert f'headwater_requests_total{{call="infer",outcome="{outcome}"}} 0.0' in text
