"""Frames in parts over a link, on a real port: their order, and what of them is never written."""

import asyncio
import time

from headwater.compression.parts import Part
from headwater.device.link import Link
from headwater.protos import edge_pb2 as pb
from tests.device.fake_edge import FakeEdge, ok
from tests.device.links import linked

PARTS = (Part(1, b"\x01\x01"), Part(2, b"\x02"), Part(4, b"\x03"))


def ok_when_whole(frame: pb.FeatureFrame) -> pb.Answer | None:
    return ok(frame) if not frame.groups or frame.part == 2 else None


async def test_parts_are_written_in_order_before_the_next_frame() -> None:
    edge = FakeEdge(answer=ok_when_whole)
    async with linked(edge) as link:
        replies = await asyncio.gather(link.send(PARTS, tasks=["a"]), link.send(b"\x09"), link.send(PARTS))
        assert [(frame.sequence, frame.part, frame.groups) for frame in edge.frames] == [
            *((1, part, 4) for part in range(3)),
            (2, 0, 0),
            *((3, part, 4) for part in range(3)),
        ]
        assert [frame.data for frame in edge.frames[:3]] == [part.data for part in PARTS]
        assert [list(frame.tasks) for frame in edge.frames[:3]] == [["a"], [], []]
        assert [reply.bytes_written for reply in replies] == [4, 1, 4]


async def test_after_a_broken_stream_a_frame_in_parts_begins_again() -> None:
    edge = FakeEdge(answer=lambda _: None)
    async with linked(edge) as link:
        send = asyncio.create_task(link.send(PARTS))
        await edge.until(lambda: len(edge.frames) == 3)
        edge.answer = ok_when_whole
        edge.break_streams()
        assert (await send).attempts == 2
        assert [frame.part for frame in edge.frames] == [0, 1, 2, 0, 1, 2]


LARGE = tuple(Part(groups, bytes(1 << 20)) for groups in range(1, 6))
"""So large that the next one is not written before the one before was read."""


class ReadsOne:
    """Answers the first part of a large frame, if it does, and reads no further until it is let."""

    def __init__(self, *, answers: bool) -> None:
        self.edge = FakeEdge(answer=self._answer)
        self._answers = answers

    def _answer(self, frame: pb.FeatureFrame) -> pb.Answer | None:
        if frame.groups == 0:
            return ok(frame)
        self.edge.reads.clear()
        return pb.Answer(sequence=frame.sequence, status=pb.STATUS_OK, groups_used=1) if self._answers else None

    async def next_frame(self, link: Link) -> list[tuple[int, int]]:
        """Read on, until a frame that was sent after the large one has come; number and part of all."""
        self.edge.answer = lambda frame: ok(frame) if frame.groups == 0 else None
        self.edge.reads.set()
        await link.send(b"\x07")
        return [(frame.sequence, frame.part) for frame in self.edge.frames]


async def test_parts_that_are_not_written_when_the_answer_comes_never_are() -> None:
    reader = ReadsOne(answers=True)
    async with linked(reader.edge) as link:
        reply = await link.send(LARGE)
        assert reply.bytes_used == 1 << 20
        assert reply.bytes_written <= 2 << 20
        came = await reader.next_frame(link)
        assert came in ([(1, 0), (2, 0)], [(1, 0), (1, 1), (2, 0)])


async def test_parts_that_are_not_written_when_the_frame_is_given_up_never_are() -> None:
    reader = ReadsOne(answers=False)
    async with linked(reader.edge) as link:
        reply = await link.send(LARGE, give_up_s=time.monotonic() + 0.2)
        assert reply.answer.status == pb.STATUS_EXPIRED
        came = await reader.next_frame(link)
        assert came in ([(1, 0), (2, 0)], [(1, 0), (1, 1), (2, 0)])


async def test_a_cancelled_caller_withdraws_the_frame_and_the_cancel_overtakes_its_parts() -> None:
    reader = ReadsOne(answers=False)
    async with linked(reader.edge) as link:
        send = asyncio.create_task(link.send(LARGE))
        await reader.edge.until(lambda: len(reader.edge.frames) == 1)
        send.cancel()
        await asyncio.wait([send])
        reader.edge.answer = lambda _: None
        reader.edge.reads.set()
        await reader.edge.until(lambda: any(message.cancel.sequence == 1 for message in reader.edge.others))
        assert len(reader.edge.frames) <= 2


async def test_other_messages_go_between_parts() -> None:
    reader = ReadsOne(answers=False)
    async with linked(reader.edge) as link:
        send = asyncio.create_task(link.send(LARGE))
        await reader.edge.until(lambda: len(reader.edge.frames) == 1)
        link.control(pb.DeviceMessage(report=pb.Report(mode=3)))
        reader.edge.answer = lambda frame: ok(frame) if frame.part == 4 and reader.edge.others else None
        reader.edge.reads.set()
        assert (await send).answer.status == pb.STATUS_OK
        assert reader.edge.others[0].report.mode == 3
