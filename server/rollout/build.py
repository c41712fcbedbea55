"""From what rounds have learnt to a bundle: other weights in the parent's place, everything else made anew from them.

    parent ── its network ── learnt arrays ──> graphs, weights ┐
    the server's own images, split as for the parent ── train ─┼─> tables, opinions     a prior that is out of date
                                                        test ──┴─> figures, calibration   would cost bytes, or the frame

There are no statistics of norms to recalibrate: in rounds they are scales and shifts, trained like all else
(compression/learning/network.py). Of the parent stay its whole model and the tails that give pictures.

The same parent, arrays, images and `created` give the same bundle, to the last byte, so that a run that was killed and
went on can be held against one that was not.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.compression.bundle import to_safetensors
from headwater.compression.datasets import NAMES
from headwater.compression.errors import RolloutError
from headwater.compression.labelled import open_labelled
from headwater.compression.learning.arrays import load, version_of
from headwater.compression.learning.reading import WEIGHTS, network_of, stored
from headwater.server.federation.versions import latest
from headwater.server.rollout.versions import Versions
from headwater.server.training import pipeline
from headwater.server.training.add_task import recipe_of
from headwater.server.training.build import WHOLE, Built, finish, measured, split_graphs
from headwater.server.training.measure import Bench

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headwater.compression.bundle import Bundle
    from headwater.compression.datasets import Dataset
    from headwater.compression.learning.arrays import Arrays
    from headwater.compression.learning.network import SplitNetwork
    from headwater.compression.learning.samples import Samples
    from headwater.compression.manifest import Manifest, Task


@dataclasses.dataclass(frozen=True)
class Held:
    """The server's own images."""

    train: Samples
    """What tables and opinions are made from."""
    test: Samples
    """What figures are measured on."""
    said: Mapping[str, object] = dataclasses.field(default_factory=dict)
    """What a manifest says of them; empty: what the parent's says."""


@dataclasses.dataclass(frozen=True)
class Made:
    """A bundle of what rounds have learnt, and the images that it was made and measured with."""

    bundle: Bundle
    images: Held


def rebuild(parent: Bundle, arrays: Arrays, images: Held, *, created: str) -> Built:
    """The bundle of learnt arrays.

    Args:
        parent: the bundle that the rounds began from.
        arrays: all that is trainable, see :func:`~headwater.compression.learning.arrays.arrays_of`.
        images: of the server.
        created: when, ISO 8601 with the zone; part of the bundle's id.

    Raises:
        LearningError: the arrays are not those of the parent's network.
    """
    network = network_of(parent)
    load(network, arrays)
    return rebuild_from(parent, network, images, created=created)


def rebuild_from(parent: Bundle, network: SplitNetwork, images: Held, *, created: str) -> Built:
    """The bundle of a network whose norms are frozen; it may have fewer channels than the parent's."""
    network.eval()
    manifest = parent.manifest
    graphs = split_graphs(network, manifest.input, manifest.tasks)
    kept = (WHOLE, *(task.tail_file for task in manifest.tasks if not task.labels))
    files = {name: parent.read(name) for name in kept if name in parent}
    weights = stored(network)
    files |= {**graphs.files, WEIGHTS: to_safetensors(weights)}
    learnt = version_of({name: value.detach().numpy() for name, value in network.named_parameters()})
    draft = dataclasses.replace(
        manifest,
        created=created,
        parent=parent.id.hex(),
        answers_for=(),
        latent=graphs.latent,
        modes=graphs.modes,
        exit=None,
        data={**manifest.data, **images.said, "learnt": learnt},
        measured={**manifest.measured, **graphs.macs},
    )
    return finish(draft, files, network, images.train, images.test)


def of_rounds(state: Path, source: str | Dataset, *, created: str, parent: Bundle | None = None) -> Made:
    """The bundle of what the rounds in a server's folder have brought so far.

    Args:
        state: the folder.
        source: see :func:`images_of`.
        created: see :func:`rebuild`.
        parent: the bundle that the rounds began from; None for the one that the server has kept.

    Raises:
        LearningError: there were no rounds.
        RolloutError: the parent is not there, or the images are others than its.
    """
    learnt = latest(state)
    if parent is None:
        with Versions(state) as versions:
            parent = versions.load(learnt.bundle_id) if versions.has(learnt.bundle_id) else None
    if parent is None or parent.id != learnt.bundle_id:
        raise RolloutError(
            f"the rounds began from the bundle {learnt.bundle_id[:5].hex()}, which is not here; start the server with "
            "it and --state once, or give it with --parent"
        )
    images = images_of(parent, source)
    return Made(rebuild(parent, learnt.arrays, images, created=created).bundle, images)


def images_of(parent: Bundle, source: str | Dataset) -> Held:
    """Read images of the server's own: the data set that a bundle was trained on, split as then, or any folder.

    A folder has a sub-folder a label of the bundle's first task, or a table (docs/train-your-own.md); its ``test/`` is
    what is measured on, or a part of it.

    Raises:
        RolloutError: a named data set is another one, or has changed, so that what was learnt from might be held out;
            or a folder does not label all of the bundle's tasks.
        DataError: they cannot be read.
    """
    tasks = tuple(task for task in parent.manifest.tasks if task.labels)
    if isinstance(source, str) and source not in NAMES:
        return _folder(parent, Path(source), tasks)
    dataset = pipeline.opened(source)
    name = source if isinstance(source, str) else dataset.name
    prepared = _prepared(parent, name, dataset, tasks, parent.manifest.data.get("split_by"))
    now, was, manifest = pipeline.provenance(prepared), parent.manifest.data, parent.manifest
    for key in ("name", "split"):
        if now.get(key) != was.get(key):
            raise RolloutError(
                f"{key} of {dataset.name} is {now.get(key)!r} and was {was.get(key)!r} when the bundle "
                f"{manifest.name} {parent.short_id} was built; measure it on the same images"
            )
    return Held(prepared.train, prepared.test)


def _folder(parent: Bundle, folder: Path, tasks: tuple[Task, ...]) -> Held:
    dataset = open_labelled(folder, tasks)
    if missing := [task.name for task in tasks if task not in dataset.tasks]:
        raise RolloutError(
            f"{folder} has no labels of {', '.join(missing)}, which the bundle answers too; list them in a labels.csv"
        )
    prepared = _prepared(parent, str(folder), dataset, tasks, None)
    return Held(prepared.train, prepared.test, pipeline.provenance(prepared))


def _prepared(
    parent: Bundle, name: str, dataset: Dataset, tasks: tuple[Task, ...], by: Sequence[str] | None
) -> pipeline.Prepared:
    prepared = pipeline.prepare_tasks(name, dataset, recipe_of(parent), tasks, by)
    if prepared.spec != parent.manifest.input:
        raise RolloutError(f"the bundle reads {parent.manifest.input}; its recipe makes {prepared.spec}")
    return prepared


def measured_on(bundle: Bundle, images: Held) -> Manifest:
    """What a bundle's manifest would say of its modes, had it been measured on these images."""
    bench = Bench(bundle, images.test.images.numpy(), [task for task in bundle.manifest.tasks if task.labels])
    labels = {name: label.numpy() for name, label in images.test.labels.items()}
    blank = [dataclasses.replace(mode, accuracy={}, balanced_accuracy={}, auroc={}) for mode in bundle.manifest.modes]
    modes = tuple(measured(mode, bench.run(mode), labels) for mode in blank)
    return dataclasses.replace(bundle.manifest, modes=modes, data={**bundle.manifest.data, **images.said})
