from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from headwater.protos import edge_pb2 as pb
from headwater.server import loop
from tests import tiny
from tests.server.edges import assert_answers, edge


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ends = socket.socketpair()
    for end in ends:
        end.settimeout(0)
    yield ends
    for end in ends:
        end.close()


def test_many_wake_ups_are_handled_once_with_one_byte_left(pair: tuple[socket.socket, socket.socket]) -> None:
    reader, writer = pair
    left: list[int] = []
    handle = loop.coalesced(reader, lambda: left.append(len(reader.recv(100))))
    writer.send(b"x" * 5)
    handle()
    writer.send(b"x")
    handle()
    handle()
    assert left == [1, 1]
    with pytest.raises(BlockingIOError):
        reader.recv(1)


def test_the_installed_grpc_is_recognised_and_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where this fails, grpc has changed how it wakes a loop: the server works, but spends more on each frame."""
    recognised: list[bool] = []
    plain = loop.is_wake_up

    def noted(callback: Callable[..., Any]) -> bool:
        recognised.append(plain(callback))
        return recognised[-1]

    async def serve() -> None:
        async with edge() as server:
            frames = [tiny.bundle().frames().pack_file(tiny.frame(tiny.bundle(), seed, 3)) for seed in range(40)]
            answers = await asyncio.gather(*(server.stub.Infer(pb.InferRequest(frame=frame)) for frame in frames))
            for seed, answer in enumerate(answers):
                assert_answers(answer, tiny.bundle(), seed, 3)

    monkeypatch.setattr(loop, "is_wake_up", noted)
    with asyncio.Runner(loop_factory=loop.Loop) as runner:
        runner.run(serve())
    assert True in recognised


async def test_other_readers_are_left_alone(pair: tuple[socket.socket, socket.socket]) -> None:
    reader, writer = pair
    own = loop.Loop()
    try:
        got: list[bytes] = []
        own.add_reader(reader, lambda: (got.append(reader.recv(100)), own.stop()))
        writer.send(b"abc")
        await asyncio.to_thread(own.run_forever)
        assert got == [b"abc"]
    finally:
        own.close()
