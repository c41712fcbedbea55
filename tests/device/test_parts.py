"""The agent's long frames, in parts; a slow link for them is in tests/integration/test_progressive.py."""

import asyncio

from headwater.compression.bundle import Bundle
from headwater.device.agent import Agent
from headwater.device.settings import DeviceSettings
from headwater.protos import edge_pb2 as pb
from tests import tiny
from tests.device.fake_edge import FakeEdge, serving


async def test_long_frames_go_in_parts_as_many_groups_as_the_server_wishes(tiny_bundle: Bundle) -> None:
    def answer_last(frame: pb.FeatureFrame) -> pb.Answer | None:
        if frame.groups and frame.part == 0:
            return None
        return pb.Answer(sequence=frame.sequence, status=pb.STATUS_OK, groups_used=frame.groups)

    edge = FakeEdge(answer=answer_last)
    settings = DeviceSettings(width=1.0, gain=3, progressive=True, progressive_bytes=90, tasks=("shape",))
    async with serving(edge), Agent(tiny_bundle, f"127.0.0.1:{edge.port}", settings) as agent:
        record = await agent.infer(tiny.image(1)[0])
        assert (record.groups, record.groups_used) == (3, 3)
        assert record.bytes == sum(len(frame.data) for frame in edge.frames)
        assert [(frame.part, frame.groups) for frame in edge.frames] == [(0, 3), (1, 3)]
        await edge.send(pb.ServerMessage(mode_hint=pb.ModeHint(max_groups=2)))
        while agent.link.mode_hint is None:  # noqa: ASYNC110 - the other end's message has no event here
            await asyncio.sleep(0.001)
        record = await agent.infer(tiny.image(1)[0])
        assert (record.groups, len(edge.frames)) == (2, 3), "what is left is too short for parts"
        assert edge.frames[2].groups == 0
