from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headwater.protos import edge_pb2 as pb
from headwater.simulations.fleet.wire import Timing, answer_bytes, frame_bytes

numbers = st.integers(0, 100_000)


@given(
    st.integers(1, 4000), st.integers(1, 1 << 40), numbers, st.lists(st.sampled_from(["defect", "shape"]), max_size=2)
)
def test_a_frame_takes_what_protobuf_makes_of_it(size: int, sequence: int, deadline_ms: int, tasks: list[str]) -> None:
    frame = pb.FeatureFrame(sequence=sequence, data=bytes(size), deadline_ms=deadline_ms, tasks=tasks)
    assert frame_bytes(size, sequence, deadline_ms, tasks) == 14 + pb.DeviceMessage(frame=frame).ByteSize()


@given(numbers, numbers, numbers, st.integers(1, 300), st.integers(0, 300), st.integers(1, 200))
def test_an_answer_takes_what_protobuf_makes_of_it(
    queue_us: int, decode_us: int, run_us: int, batch: int, depth: int, labels: int
) -> None:
    said = {"queue_us": queue_us, "decode_us": decode_us, "run_us": run_us, "batch": batch, "queue_depth": depth}
    results = [pb.TaskResult(task=task, scores=[0.5] * labels) for task in ("defect", "kind")]
    answer = pb.Answer(
        sequence=300, status=pb.STATUS_OK, results=results, timing=pb.ServerTiming(**said), bundle_id=b"12345"
    )
    answer.groups_used = 3
    foretold = answer_bytes({"defect": labels, "kind": labels}, 300, Timing(**said), groups_used=3)
    assert foretold == 14 + pb.ServerMessage(answer=answer).ByteSize()
