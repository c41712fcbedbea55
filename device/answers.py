"""From the server's answer to what people and records read: labels put to scores, statuses by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from headwater.device.record import Result, Status
from headwater.protos import edge_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headwater.compression.manifest import Task


def results(answer: pb.Answer, tasks: Iterable[Task]) -> dict[str, Result]:
    """Put the labels to an answer's scores."""
    labels = {task.name: task.labels for task in tasks}
    return {result.task: _result(labels[result.task], result.scores) for result in answer.results}


def _result(labels: tuple[str, ...], scores: Iterable[float]) -> Result:
    by_label = dict(zip(labels, scores, strict=True))
    best = max(by_label, key=by_label.__getitem__)
    return Result(best, by_label[best], by_label)


def status_name(answer: pb.Answer) -> Status:
    """The status as records name it: STATUS_UNKNOWN_TASK is "unknown_task"."""
    return cast("Status", pb.Status.Name(answer.status).removeprefix("STATUS_").lower())
