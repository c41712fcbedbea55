"""Cutting a byte stream into pictures: any chunking, both formats, rubbish between and inside."""

import io
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headwater.device import pictures as module
from headwater.device.pictures import pictures


def encoded(kind: str, seed: int = 0, side: int = 24, **options: object) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def with_thumbnail() -> bytes:
    picture, inner = encoded("jpeg", 8), encoded("jpeg", 7, 8)
    segment = b"\xff\xe1" + (len(inner) + 2).to_bytes(2, "big") + inner
    return picture[:2] + segment + picture[2:]


ALL = [
    encoded("jpeg", 1),
    encoded("png", 2),
    encoded("jpeg", 3, quality=100, subsampling=0),
    encoded("jpeg", 4, progressive=True),
    with_thumbnail(),
    encoded("png", 5, compress_level=0),
    encoded("jpeg", 6, restart_marker_blocks=1),
]


def reader(data: bytes, chunk: Callable[[], int] = lambda: 1 << 16) -> Callable[[int], bytes]:
    stream = io.BytesIO(data)
    return lambda size: stream.read(min(size, chunk()))


@pytest.mark.parametrize("between", [b"", b"\r\n--frame\r\nContent-Type: image/jpeg\r\n\r\n", b"\x00\x89PN\xff"])
@pytest.mark.parametrize("chunk", [1, 2, 3, 97, 1 << 16])
def test_gives_back_what_was_put_together(between: bytes, chunk: int) -> None:
    stream = between.join([b"", *ALL, b""])
    assert list(pictures(reader(stream, lambda: chunk))) == ALL


def test_fill_bytes_before_a_marker() -> None:
    picture = encoded("jpeg")
    padded = picture[:2] + b"\xff\xff" + picture[2:]
    assert list(pictures(reader(padded))) == [padded]


@pytest.mark.parametrize("picture", ALL[:2])
def test_a_cut_last_picture_is_left_out(picture: bytes) -> None:
    for end in range(len(picture)):
        assert list(pictures(reader(ALL[3] + picture[:end]))) == [ALL[3]]


def test_goes_on_behind_a_damaged_picture() -> None:
    damaged_png = ALL[1][:12] + b"\x00\x01\x02\x03" + ALL[1][16:]
    damaged_jpeg = ALL[0][:2] + b"\xff\xe0\x00\x04\x00\x00\x00"
    assert list(pictures(reader(damaged_png + damaged_jpeg + ALL[2]))) == [ALL[2]]


def test_a_claimed_size_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PICTURE_BYTES", 1 << 16)
    bomb = b"\x89PNG\r\n\x1a\n" + (1 << 31).to_bytes(4, "big") + b"IHDR"
    assert list(pictures(reader(bomb + ALL[0]))) == [ALL[0]]


def test_an_endless_picture_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PICTURE_BYTES", 1 << 16)
    head = ALL[0][: ALL[0].index(b"\xff\xda") + 14]
    taken = 0

    def read(size: int) -> bytes:
        nonlocal taken
        taken += size
        return head if taken == size else bytes(size) if taken < 1 << 23 else b""

    assert list(pictures(read)) == []


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(0, len(ALL) - 1), st.randoms(use_true_random=False))
def test_any_bytes_end(rubbish: bytes, which: int, rng: random.Random) -> None:
    picture = bytearray(ALL[which])
    for _ in range(3):
        picture[rng.randrange(len(picture))] = rng.randrange(256)
    for found in pictures(reader(rubbish + picture + rubbish, lambda: rng.randint(1, 999))):
        assert found[:3] == b"\xff\xd8\xff" or found[:4] == b"\x89PNG"
