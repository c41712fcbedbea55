"""What gRPC's core keeps out, and the descriptors that connections take."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket

import pytest

from headwater.server.access import options
from headwater.server.settings import ServerSettings
from tests.server.edges import TIMEOUT_S, Talk, edge


class Limit:
    """A system's limit of descriptors."""

    def __init__(self, soft: int, hard: int) -> None:
        self.now = (soft, hard)

    def getrlimit(self, _: int) -> tuple[int, int]:
        return self.now

    def setrlimit(self, _: int, wanted: tuple[int, int]) -> None:
        assert wanted[0] <= wanted[1] or wanted[1] == resource.RLIM_INFINITY
        self.now = wanted


@pytest.mark.parametrize(
    ("soft", "hard", "then", "warned"),
    [
        (1024, 524288, 2 * 2048 + 64 + 256, False),
        (1024, resource.RLIM_INFINITY, 2 * 2048 + 64 + 256, False),
        (1024, 2000, 2000, True),
        (1024, 1024, 1024, True),
        (9000, 9000, 9000, False),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, resource.RLIM_INFINITY, False),
    ],
)
def test_there_are_descriptors_for_all_connections_or_a_warning(
    soft: int, hard: int, then: int, warned: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    limit = Limit(soft, hard)
    for name in ("getrlimit", "setrlimit"):
        monkeypatch.setattr(options.resource, name, getattr(limit, name))
    options.make_room(ServerSettings())
    assert limit.now == (then, hard)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * warned


async def test_one_connection_more_than_may_be_is_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "BESIDE", 3)
    async with edge(max_streams=1) as server, Talk(server) as talk:  # 5 connections, of which one is taken
        host, port = server.addresses.grpc.rsplit(":", 1)
        opened = [socket.create_connection((host, int(port))) for _ in range(4 + 3)]
        for one in opened:
            one.settimeout(TIMEOUT_S)
        await talk.frame(1)
        await talk.answer()
        assert [await _is_closed(one) for one in opened] == [False] * 4 + [True] * 3
        for one in opened:
            one.close()


async def _is_closed(one: socket.socket) -> bool:
    """Whether the server closed it rather than greeted: its settings come first on one that it keeps."""
    try:
        return not await asyncio.to_thread(one.recv, 9)
    except ConnectionResetError:
        return True
