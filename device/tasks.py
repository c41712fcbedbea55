"""Which tasks there are to ask for: those of the bundle, and, once a server has greeted, those that it has.

A server may have a later bundle that answers for the device's own with more tasks. So what the bundle lacks is looked
for at the server before it is called unknown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.compression.errors import SettingsError
from headwater.compression.manifest import Manifest, Task
from headwater.protos import edge_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from headwater.device.settings import DeviceSettings


def offered(specs: Iterable[pb.TaskSpec]) -> tuple[Task, ...]:
    """The tasks that a server says it has."""
    return tuple(
        Task(spec.name, tuple(spec.labels), "image" if spec.kind == pb.TASK_KIND_IMAGE else "classify")
        for spec in specs
    )


def known(manifest: Manifest, specs: Sequence[pb.TaskSpec]) -> tuple[Task, ...]:
    """The bundle's own tasks, and what else the server says that it has."""
    own = {task.name for task in manifest.tasks}
    return (*manifest.tasks, *(task for task in offered(specs) if task.name not in own))


def asked(manifest: Manifest, tasks: tuple[str, ...]) -> tuple[str, ...]:
    """What is asked for by name: the bundle's tasks with labels, where the settings name none."""
    return tasks or tuple(task.name for task in manifest.tasks if task.labels)


def lacking(manifest: Manifest, asked: Iterable[str]) -> bool:
    """Whether something is asked for that only a server can have."""
    return not {task.name for task in manifest.tasks}.issuperset(asked)


def check(settings: DeviceSettings, manifest: Manifest, specs: Sequence[pb.TaskSpec]) -> None:
    """Raise :class:`SettingsError` for a task that neither side has, and for pictures that have nowhere to go."""
    tasks = {task.name: task for task in (*manifest.tasks, *offered(specs))}
    for name in settings.tasks:
        if name not in tasks:
            own, others = (", ".join(task.name for task in each) or "none" for each in (manifest.tasks, offered(specs)))
            server = ",".join(settings.server)
            raise SettingsError(
                f"there is no task {name!r}: the bundle {manifest.name} has {own}; the server {server} has "
                f"{others}; ask for some of these with --tasks."
            )
        if tasks[name].kind == "image" and settings.save_images is None:
            raise SettingsError(
                f"the task {name} is answered with a picture; say with --save-images DIR where pictures go."
            )
