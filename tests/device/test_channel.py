"""gRPC's errors become headwater's, every one of them."""

import grpc
import grpc.aio
import pytest

from headwater.compression.errors import DeadlineError, FrameError, HeadwaterError, LinkError, RefusedError
from headwater.device.channel import _ERRORS, LONGEST_TOLD_S, infer_once, to_error, told_s


def failure(code: grpc.StatusCode, details: str = "why") -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=details)


def test_every_status_has_an_error() -> None:
    assert set(_ERRORS) == set(grpc.StatusCode) - {grpc.StatusCode.OK}


@pytest.mark.parametrize("code", sorted(_ERRORS, key=str))
def test_the_servers_words_are_kept(code: grpc.StatusCode) -> None:
    error = to_error(failure(code), "edge:1")
    assert isinstance(error, HeadwaterError)
    assert "why" in str(error)
    assert "edge:1" in str(error)


def test_some_meanings() -> None:
    assert isinstance(to_error(failure(grpc.StatusCode.RESOURCE_EXHAUSTED), "x"), RefusedError)
    assert isinstance(to_error(failure(grpc.StatusCode.DEADLINE_EXCEEDED), "x"), DeadlineError)
    assert isinstance(to_error(failure(grpc.StatusCode.INVALID_ARGUMENT), "x"), FrameError)


@pytest.mark.parametrize(
    ("told", "waits_s"), [("1500", 1.5), ("-1", 0), ("soon", 0), ("", 0), ("9" * 30, LONGEST_TOLD_S)]
)
def test_a_server_that_says_when_to_come_again_is_heeded_within_reason(told: str, waits_s: float) -> None:
    metadata = grpc.aio.Metadata(("x", "y"), ("grpc-retry-pushback-ms", told))
    error = grpc.aio.AioRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.aio.Metadata(), metadata, details="full")
    assert told_s(to_error(error, "edge:1")) == waits_s
    assert told_s(to_error(failure(grpc.StatusCode.RESOURCE_EXHAUSTED), "edge:1")) == 0
    assert told_s(LinkError("gone")) == told_s(None) == 0


async def test_nobody_there() -> None:
    with pytest.raises(LinkError, match=r"no server answers at 127.0.0.1:1 .*is it running"):
        await infer_once(["127.0.0.1:1"], b"frame")
