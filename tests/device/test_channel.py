"""gRPC's errors become headwater's, every one of them."""

import grpc
import grpc.aio
import pytest

from headwater.compression.errors import DeadlineError, FrameError, HeadwaterError, LinkError, RefusedError
from headwater.device.channel import _ERRORS, infer_once, to_error


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


async def test_nobody_there() -> None:
    with pytest.raises(LinkError, match=r"no server answers at 127.0.0.1:1 .*is it running"):
        await infer_once(["127.0.0.1:1"], b"frame")
