"""Labels put to scores, and servers that send what does not fit."""

import pytest

from headwater.compression.errors import LinkError
from headwater.compression.manifest import Task
from headwater.device.answers import PNG_SIGNATURE, images, results, status_name
from headwater.protos import edge_pb2 as pb

TASKS = (Task("defect", ("intact", "defective")), Task("shape", ("a", "b", "c")))


def answer(*tasks: tuple[str, list[float]]) -> pb.Answer:
    return pb.Answer(results=[pb.TaskResult(task=name, scores=scores) for name, scores in tasks])


def test_labels() -> None:
    found = results(answer(("shape", [0.25, 0.25, 0.5]), ("defect", [0.75, 0.25])), TASKS)
    assert (found["shape"].label, found["shape"].score) == ("c", 0.5)
    assert found["defect"].scores == {"intact": 0.75, "defective": 0.25}
    assert results(answer(), TASKS) == {}


def test_pictures_stand_beside_the_scores() -> None:
    tasks = (*TASKS, Task("reconstruct", (), "image"))
    mixed = answer(("defect", [0.75, 0.25]))
    mixed.results.add(task="reconstruct", image=PNG_SIGNATURE + b"...")
    assert list(results(mixed, tasks)) == ["defect"]
    assert images(mixed, tasks) == {"reconstruct": PNG_SIGNATURE + b"..."}
    assert images(mixed, TASKS) == {}
    mixed.results[1].image = b""
    with pytest.raises(LinkError, match="0 bytes for 'reconstruct' that are no PNG"):
        images(mixed, tasks)


@pytest.mark.parametrize("wrong", [("defect", [1.0]), ("defect", []), ("other", [0.5, 0.5]), ("other", [])])
def test_scores_that_do_not_fit_the_bundle(wrong: tuple[str, list[float]]) -> None:
    with pytest.raises(LinkError, match=r"the bundle has defect \(2\), shape \(3\)"):
        results(answer(wrong), TASKS)


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (pb.STATUS_OK, "ok"),
        (pb.STATUS_UNKNOWN_TASK, "unknown_task"),
        (pb.STATUS_UNSPECIFIED, "internal"),
        (77, "internal"),
    ],
)
def test_statuses(status: pb.Status, name: str) -> None:
    assert status_name(pb.Answer(status=status)) == name
