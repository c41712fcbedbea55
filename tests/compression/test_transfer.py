"""Blobs across interruptions: whatever is cut, damaged or repeated, what ends up under a name has that hash."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import time
from pathlib import Path

import pytest

from headwater.compression import transfer
from headwater.compression.errors import TransferError
from headwater.compression.transfer import LEAST_BYTES, MOST_BYTES, BlobStore, Incoming, Outgoing, Pace

CONTENT = random.Random(1).randbytes(50_000)
SHA = hashlib.sha256(CONTENT).digest()
CHUNK = 7_000


def feed(incoming: Incoming, content: bytes = CONTENT, until: int | None = None) -> None:
    while incoming.have < (len(content) if until is None else until):
        data = content[incoming.have :][:CHUNK]
        incoming.take(incoming.have, data, hashlib.sha256(data).digest())


def test_a_blob_goes_from_one_store_to_another_in_chunks(tmp_path: Path) -> None:
    here, there = BlobStore(tmp_path / "here", 1 << 20), BlobStore(tmp_path / "there", 1 << 20)
    sender = here.open(here.put(CONTENT))
    incoming = Incoming.open(there.folder, SHA, sender.size)
    while incoming.have < sender.size:
        incoming.take(incoming.have, *sender.chunk(incoming.have, CHUNK))
    assert incoming.finish() == there.path(SHA)
    assert there.read(SHA) == CONTENT
    assert [path.name for path in there.folder.iterdir()] == [SHA.hex()]
    sender.close()


def test_it_goes_on_where_it_was_left(tmp_path: Path) -> None:
    incoming = Incoming.open(tmp_path, SHA, len(CONTENT))
    feed(incoming, until=3 * CHUNK)
    incoming.close()
    again = Incoming.open(tmp_path, SHA, len(CONTENT))
    assert again.have == 3 * CHUNK
    feed(again)
    assert again.finish().read_bytes() == CONTENT


def test_a_power_cut_at_any_byte_of_either_file_costs_no_more_than_what_was_lost(tmp_path: Path) -> None:
    rng = random.Random(2)
    for cut in range(20):
        folder = tmp_path / str(cut)
        incoming = Incoming.open(folder, SHA, len(CONTENT))
        feed(incoming, until=5 * CHUNK)
        incoming.close()
        left = {
            suffix: rng.randrange((folder / f"{SHA.hex()}.{suffix}").stat().st_size + 1) for suffix in ("part", "log")
        }
        for suffix, size in left.items():
            path = folder / f"{SHA.hex()}.{suffix}"
            rubbish = rng.choice([b"", bytes(99), rng.randbytes(9000)])
            path.write_bytes(path.read_bytes()[:size] + rubbish)
        again = Incoming.open(folder, SHA, len(CONTENT))
        assert again.have >= CHUNK * min(left["part"] // CHUNK, left["log"] // 36)
        assert (folder / f"{SHA.hex()}.part").read_bytes() == CONTENT[: again.have]
        feed(again)
        assert again.finish().read_bytes() == CONTENT


def test_wrong_chunks_change_nothing(tmp_path: Path) -> None:
    incoming = Incoming.open(tmp_path, SHA, len(CONTENT))
    feed(incoming, until=CHUNK)
    data = CONTENT[CHUNK : 2 * CHUNK]
    right = hashlib.sha256(data).digest()
    for offset, chunk, sha256 in [
        (0, data, right),
        (2 * CHUNK, data, right),
        (CHUNK, b"", hashlib.sha256().digest()),
        (CHUNK, data[:-1] + b"!", right),
        (CHUNK, data, b"short"),
        (CHUNK, bytes(len(CONTENT)), hashlib.sha256(bytes(len(CONTENT))).digest()),
    ]:
        with pytest.raises(TransferError):
            incoming.take(offset, chunk, sha256)
        assert incoming.have == CHUNK
    feed(incoming)
    assert incoming.finish().read_bytes() == CONTENT


def test_a_whole_of_another_hash_is_thrown_away(tmp_path: Path) -> None:
    incoming = Incoming.open(tmp_path, SHA, len(CONTENT))
    feed(incoming, content=bytes(len(CONTENT)))
    with pytest.raises(TransferError, match="thrown away"):
        incoming.finish()
    assert list(tmp_path.iterdir()) == []
    again = Incoming.open(tmp_path, SHA, len(CONTENT))
    with pytest.raises(TransferError, match="0 of 50000 bytes"):
        again.finish()
    again.close()


def test_a_blob_is_received_by_one_at_a_time(tmp_path: Path) -> None:
    first = Incoming.open(tmp_path, SHA, len(CONTENT))
    with pytest.raises(TransferError, match="being received already"):
        Incoming.open(tmp_path, SHA, len(CONTENT))
    first.close()
    Incoming.open(tmp_path, SHA, len(CONTENT)).close()


def test_a_claimed_size_that_does_not_fit_is_refused_before_a_byte_comes(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="free"):
        Incoming.open(tmp_path, SHA, 1 << 60)
    with pytest.raises(TransferError, match="has 32 bytes"):
        Incoming.open(tmp_path, b"name", 1)
    Incoming.open(tmp_path, SHA, len(CONTENT)).close()  # nothing is locked


def test_after_a_full_disk_it_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    incoming = Incoming.open(tmp_path, SHA, len(CONTENT))
    feed(incoming, until=CHUNK)
    pwrite = os.pwrite
    with monkeypatch.context() as full:

        def half(descriptor: int, data: bytes, offset: int) -> int:
            if len(data) < CHUNK:
                raise OSError(errno.ENOSPC, "No space left on device")
            return pwrite(descriptor, data[: CHUNK // 2], offset)

        full.setattr(transfer.os, "pwrite", half)
        with pytest.raises(TransferError, match="No space left"):
            feed(incoming)
    assert incoming.have == CHUNK
    feed(incoming)
    assert incoming.finish().read_bytes() == CONTENT


def test_a_store_is_bounded_and_counts_what_is_still_coming(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs", len(CONTENT) + 100)
    incoming = Incoming.open(store.folder, SHA, len(CONTENT))
    feed(incoming)
    with pytest.raises(TransferError, match="beyond"):
        store.put(bytes(101))
    incoming.finish()
    assert store.put(CONTENT) == SHA  # it is there already
    small = store.put(bytes(10))
    store.forget(SHA)
    store.forget(SHA)
    assert not store.has(SHA)
    assert store.has(small)
    with pytest.raises(TransferError, match="not there"):
        store.open(SHA)


def test_damage_on_the_disk_is_noticed(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, 1 << 20)
    sha256 = store.put(CONTENT)
    store.path(sha256).write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(TransferError, match="damaged"):
        store.read(sha256)


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, 100)
    for name, age_s in (("new-old", 7200), ("new-now", 0)):
        (tmp_path / name).write_bytes(bytes(60))
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    store.put(bytes(40))
    assert {path.name for path in tmp_path.iterdir()} == {"new-now", hashlib.sha256(bytes(40)).hexdigest()}


def test_a_blob_may_come_elsewhere_than_where_it_stays(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs", 1 << 20)
    incoming = Incoming.open(tmp_path / "cam", SHA, len(CONTENT))
    feed(incoming)
    store.require_room(len(CONTENT))
    incoming.finish(store.folder)
    assert store.read(SHA) == CONTENT


def test_a_byte_beyond_the_end_is_not_sent(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, 1 << 20)
    sender = Outgoing(store.path(store.put(CONTENT)))
    for offset in (-1, len(CONTENT)):
        with pytest.raises(TransferError, match="asked for"):
            sender.chunk(offset, 1)
    sender.close()


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("way_s", [0.0, 0.005, 0.4, 2.0])
@pytest.mark.parametrize("rate", [625.0, 12_500.0, 125e3, 5e6, 1e9])
def test_a_chunk_comes_to_hold_the_line_for_a_fifth_of_a_second(rate: float, way_s: float, told: bool) -> None:
    pace = Pace(way_s if told else None)
    for _ in range(14):
        size = pace.chunk_bytes()
        pace.acknowledged(size, way_s + size / rate)
    expected = min(max(0.2 * rate, LEAST_BYTES), MOST_BYTES)
    # A way that was measured has the first chunk's bytes in it, which is nothing beside a long chunk.
    assert pace.chunk_bytes() == pytest.approx(expected, rel=0.01 if told else 0.5)
    assert pace.chunk_bytes(0.02) == pytest.approx(pace.chunk_bytes() / 10, rel=0.01)


def test_a_line_that_becomes_slow_is_believed_at_once_and_one_lucky_chunk_is_not() -> None:
    pace = Pace(0.0, rate=1e6)
    pace.acknowledged(200_000, 2.0)
    assert pace.chunk_bytes() == 20_000
    pace.acknowledged(20_000, 1e-9)
    assert pace.chunk_bytes() == 80_000


def test_a_way_that_was_told_too_long_is_corrected_by_the_first_chunk() -> None:
    pace = Pace(5.0)
    pace.acknowledged(4096, 0.1)
    pace.acknowledged(16_384, 0.1 + 0.2)
    assert pace.way_s == 0.1
