"""From an answer of the server, or of a network here, to what people read: labels put to scores, statuses by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast, get_args

import numpy as np

from headwater.compression.errors import LinkError
from headwater.device.record import Result, Status
from headwater.protos import edge_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from headwater.compression.manifest import Task

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NAMES = {value: name.removeprefix("STATUS_").lower() for name, value in pb.Status.items()}


def results(answer: pb.Answer, tasks: Iterable[Task]) -> dict[str, Result]:
    """Put the labels to an answer's scores; raises :class:`LinkError` if it does not fit the tasks.

    Answers of image tasks have no labels; they are in :func:`images`.
    """
    labels = {task.name: task.labels for task in tasks}
    for result in answer.results:
        if result.task not in labels or len(labels[result.task]) != len(result.scores):
            have = ", ".join(f"{name} ({len(classes)})" for name, classes in labels.items())
            raise LinkError(f"the server sent {len(result.scores)} scores for {result.task!r}; the bundle has {have}")
    return {result.task: _result(labels[result.task], result.scores) for result in answer.results if result.scores}


def images(answer: pb.Answer, tasks: Iterable[Task]) -> dict[str, bytes]:
    """The PNG of each image task of an answer; raises :class:`LinkError` where there is none."""
    kinds = {task.name: task.kind for task in tasks}
    pictures = {result.task: result.image for result in answer.results if kinds.get(result.task) == "image"}
    for task, data in pictures.items():
        if not data.startswith(PNG_SIGNATURE):
            raise LinkError(f"the server sent {len(data)} bytes for {task!r} that are no PNG")
    return pictures


def from_logits(labels: Sequence[str], logits: NDArray[np.float32]) -> Result:
    """Make the answer of a network's logits [K], one a label."""
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return _result(labels, (weights / weights.sum()).tolist())


def _result(labels: Sequence[str], scores: Iterable[float]) -> Result:
    by_label = dict(zip(labels, scores, strict=True))
    best = max(by_label, key=by_label.__getitem__)
    return Result(best, by_label[best], by_label)


def status_name(answer: pb.Answer) -> Status:
    """The status as records name it: STATUS_UNKNOWN_TASK is "unknown_task", one of a newer server "internal"."""
    name = _NAMES.get(answer.status, "")
    return cast("Status", name) if name in get_args(Status) else "internal"
