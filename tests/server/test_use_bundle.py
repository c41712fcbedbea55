"""A device swaps its bundle in the middle of a stream: each frame is answered by the bundle that coded it."""

import grpc

from headwater.protos import edge_pb2 as pb
from headwater.server.registry import KEEP, REVIVED, Registry
from tests import tiny
from tests.server.edges import Talk, assert_answers, edge
from tests.versions import version


def use(number: int) -> pb.DeviceMessage:
    return pb.DeviceMessage(use_bundle=pb.UseBundle(bundle_id=version(number).id))


async def coded(talk: Talk, sequence: int, number: int, *, named: bool = False) -> None:
    """Send the frame of a seed, coded by a version; ``named`` says by which."""
    data = version(number).frames().pack(tiny.frame(version(number), sequence, 3))
    await talk.frame(sequence, data=data, bundle_id=version(number).id if named else b"")


async def test_frames_that_name_none_are_of_the_last_bundle_that_was_said() -> None:
    async with edge(version(0), version(1)) as running, Talk(running, bundle=version(0)) as talk:
        running.gate.shut()
        await coded(talk, 1, 0)
        await coded(talk, 2, 1, named=True)
        await talk.send(use(1))
        await coded(talk, 3, 1)
        await coded(talk, 4, 0, named=True)
        running.gate.open()
        answers = {answer.sequence: answer for answer in [await talk.answer() for _ in range(4)]}
    for sequence, number in ((1, 0), (2, 1), (3, 1), (4, 0)):
        assert_answers(answers[sequence], version(number), sequence, 3)
        assert answers[sequence].bundle_id == version(number).id[:5]


async def test_a_bundle_that_is_not_served_here() -> None:
    async with edge(version(0)) as running, Talk(running, bundle=version(0)) as talk:
        await talk.send(use(1))
        await coded(talk, 1, 1)
        answer = await talk.answer()
        assert answer.status == pb.STATUS_UNKNOWN_BUNDLE
        assert version(0).short_id in answer.detail
        await coded(talk, 2, 0, named=True)
        assert_answers(await talk.answer(), version(0), 2, 3)
        await talk.send(use(0))
        await coded(talk, 3, 0)
        assert_answers(await talk.answer(), version(0), 3, 3)


async def test_a_stream_goes_on_with_a_bundle_that_later_ones_have_replaced() -> None:
    async with edge(version(0)) as running, Talk(running, bundle=version(0)) as talk:
        for number in range(1, KEEP + 1):
            running.server.registry.add(version(number))
        assert running.server.registry.find(version(0).id) is None
        await coded(talk, 1, 0)
        assert_answers(await talk.answer(), version(0), 1, 3)
        await coded(talk, 2, 0, named=True)
        assert (await talk.answer()).status == pb.STATUS_UNKNOWN_BUNDLE
        await talk.goodbye()
        assert await talk.read() is grpc.aio.EOF


def test_earlier_bundles_are_revived_beside_the_newest_and_not_for_ever() -> None:
    registry = Registry([version(number) for number in range(1 + REVIVED + KEEP)])
    newest = [served.id for served in registry.served]
    assert len(newest) == KEEP
    for number in range(REVIVED):
        registry.revive(version(number))
        registry.revive(version(number))
    assert [served.id for served in registry.served] == [*newest, *(version(n).id for n in range(REVIVED))]
    registry.revive(version(REVIVED))
    ids = [served.id for served in registry.served]
    assert ids == [*newest, *(version(n).id for n in range(1, REVIVED + 1))]
    assert version(0).id[:5] not in ids
    assert registry.find(version(0).id) is None
