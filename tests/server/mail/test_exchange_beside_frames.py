"""Transfers beside frames: chunks go between the batches of frames, and are short where frames come without a pause."""

import hashlib
from pathlib import Path

import pytest

from headwater.server.mail import gaps
from headwater.server.mail.mailbox import Mailbox
from tests.server.edges import edge
from tests.server.mail.couriers import CAM, REPLY, Courier, counted, post_of, put, waiting


async def test_no_chunk_goes_while_a_frame_is_being_answered(
    box: Mailbox, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gaps, "PATIENCE_S", 1e6)
    put(box)
    async with edge(state=state) as running, Courier(running) as cam:
        offer = await cam.offer()
        running.gate.shut()
        await cam.frame(1)
        await running.gate.holds()
        waits = waiting(post_of(running).offers.lines(CAM)[0].session)
        transfer = await cam.transfer(cam.opening(offer))
        await waits.wait()
        assert counted(running, "transferred_bytes", way="down") == 0
        running.gate.open()
        await cam.answer()
        assert (await transfer.read()).chunk.offset == 0


async def test_a_device_that_is_never_without_frames_gets_short_chunks(
    box: Mailbox, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gaps, "PATIENCE_S", 0.01)
    put(box)
    async with edge(state=state) as running, Courier(running) as cam:
        offer = await cam.offer()
        running.gate.shut()
        await cam.frame(1)
        await running.gate.holds()
        transfer = await cam.transfer(cam.opening(offer))
        assert 0 < len((await transfer.read()).chunk.data) < 1000


async def test_a_reply_comes_in_small_chunks_where_another_device_sends_frames(box: Mailbox, state: Path) -> None:
    put(box)
    reply = {"content_sha256": hashlib.sha256(REPLY).digest(), "content_bytes": len(REPLY)}
    async with edge(state=state) as running, Courier(running) as cam, Courier(running, "other", 8) as other:
        opening = cam.opening(await cam.offer(), upload=True, **reply)
        for frames, most in ((False, 0), (True, gaps.BUSY_BYTES)):
            if frames:
                await other.frame(1)
                await other.answer()
            transfer = await cam.transfer(opening)
            assert (await transfer.read()).ack.next_bytes == most
