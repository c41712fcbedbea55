"""What a device remembers of the rounds, in the state of Flower's context: which version it holds, what it owes.

    held         ConfigRecord   bundle, version, line, rounds, steps, seconds: counts are of this device's life
    arrays       ArrayRecord    the version's arrays; absent while they are the bundle's own
    masks        ArrayRecord    NAME: bits of the version's masks, packed; absent while there are none
    owed         ArrayRecord    what updates have left out so far (error feedback), as half precision numbers

With another bundle all but the counts begins anew: its arrays are version 0, which both ends read from it. On another
*line* of learning (rounds that were begun anew) nothing is owed: what was left out belongs to updates that are gone.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from headwater.compression.bundle import MANIFEST, Bundle
from headwater.compression.errors import LearningError, UpdateError
from headwater.compression.learning import masks as masking
from headwater.compression.learning.arrays import arrays_of, version_of
from headwater.compression.learning.layout import layout_of
from headwater.compression.learning.reading import network_of
from headwater.compression.learning.sparse import maskable
from headwater.compression.updates import decode
from headwater.protos.flower import from_record, to_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from headwater.compression.learning.network import SplitNetwork
    from headwater.compression.learning.sparse import SparsePlan
    from headwater.compression.updates import Layout

_HELD = ("arrays", "masks", "owed")
OF_VERSION = ("arrays", "masks")
"""Records that all devices which hold a version have alike; the others are each device's own."""
_COUNTS = ("rounds", "steps", "seconds")
UNKNOWN_VERSION = "unknown version"
"""In the error by which the server knows that this device needs the steps from version 0."""


@dataclass(frozen=True, eq=False)
class Start:
    """A bundle, as learning sees it."""

    bundle: Bundle
    arrays: Mapping[str, NDArray[np.float32]]
    version: str
    layout: Layout
    shapes: Mapping[str, tuple[int, ...]]
    """Of what may be sparse."""
    kept: list[SplitNetwork] = field(default_factory=list, repr=False)
    """The network of all who ask, one after the other, where a process answers for many devices; empty: none is."""

    def network(self) -> SplitNetwork:
        """A new network of version 0; if one is kept, that, with the arrays that it had last."""
        return self.kept[0] if self.kept else network_of(self.bundle)


def start_of(path: str) -> Start:
    """The bundle at a path; read again only when another is there."""
    folder = Path(path)
    file = folder / MANIFEST if folder.is_dir() else folder
    return _start(path, file.stat().st_mtime_ns if file.exists() else 0)


@lru_cache(maxsize=2)
def _start(path: str, _changed_ns: int) -> Start:
    bundle = Bundle.load(path)
    network = network_of(bundle)
    arrays = arrays_of(network)
    return Start(bundle, arrays, version_of(arrays), layout_of(network), maskable(network))


@dataclass
class Holding:
    """The state of a device."""

    start: Start
    version: str
    arrays: Mapping[str, NDArray[np.float32]]
    masks: Mapping[str, NDArray[np.bool_]] | None = None
    residual: dict[str, NDArray[np.float16]] = field(default_factory=dict)
    """By name, over whole arrays; a name without one owes nothing."""
    line: str = ""
    """The line of learning that it is owed to."""
    counts: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, state: RecordDict, start: Start) -> Holding:
        """What was kept; version 0 where that was of another bundle, or nothing was."""
        held = state.config_records.get("held", ConfigRecord())
        counts = {name: float(value) for name in _COUNTS if isinstance(value := held.get(name), int | float)}
        if held.get("bundle") != start.bundle.id:
            return cls(start, start.version, start.arrays, counts=counts)
        records = state.array_records
        arrays = from_record(records["arrays"]) if "arrays" in records else start.arrays
        masks = _masks(records["masks"], start.shapes) if "masks" in records else None
        residual = from_record(records["owed"]) if "owed" in records else {}
        return cls(start, str(held["version"]), arrays, masks, residual, str(held["line"]), counts)

    @contextmanager
    def out_of(self, state: RecordDict) -> Iterator[None]:
        """While it lasts what is held is held once: the state's own copies are gone, and put back at the end.

        What fails at the very first message leaves no trace.
        """
        known = "held" in state
        for name in _HELD:
            state.pop(name, None)
        try:
            yield
            known = True
        finally:
            if known:
                self.keep(state)

    def keep(self, state: RecordDict) -> None:
        """Put all of it into the context's state."""
        records: dict[str, Mapping[str, NDArray[Any]]] = {
            "arrays": {} if self.version == self.start.version else self.arrays,
            "masks": {name: np.packbits(mask) for name, mask in (self.masks or {}).items()},
            "owed": self.residual,
        }
        held = ConfigRecord({"bundle": self.start.bundle.id, "version": self.version, "line": self.line})
        held.update(self.counts)
        state["held"] = held
        for name, arrays in records.items():
            state.pop(name, None)
            if arrays:
                state[name] = to_record(arrays)

    def bring_to(self, base: str, down: ConfigRecord) -> None:
        """Take the steps to the round's base, from the version that is held or from version 0.

        Raises :class:`LearningError` if they lead there from neither.
        """
        if self.version == base:
            return
        versions, updates, notes = (_list(down, name) for name in ("versions", "updates", "notes"))
        if not len(versions) == len(updates) == len(notes):
            raise LearningError(f"{len(versions)} versions come with {len(updates)} updates and {len(notes)} notes")
        steps = list(zip(map(str, versions), map(bytes, updates), map(bytes, notes), strict=True))
        first = _Point(self.start.version, self.start.arrays, None)
        reasons = []
        for point in (_Point(self.version, self.arrays, self.masks), first):
            try:
                end = _walked(self.start, point, _left(steps, point.version))
            except (LearningError, UpdateError) as error:
                reasons.append(str(error))
                continue
            if end.version == base:
                self.version, self.arrays, self.masks = end.version, end.arrays, end.masks
                return
        why = f" ({reasons[-1]})" if reasons else ""
        raise LearningError(
            f"{UNKNOWN_VERSION}: this device holds {self.version}, and {len(steps)} steps do not lead to {base}{why}"
        )

    def follow(self, line: str) -> None:
        """Be on a line of learning; what is owed to another one is forgotten."""
        if line != self.line:
            self.residual.clear()
            self.line = line

    def known_masks(self, plan: SparsePlan) -> Mapping[str, NDArray[np.bool_]]:
        """Those of the version that is held; the first ones where no version has had any yet."""
        return self.masks or masking.first(self.arrays, self.start.shapes, plan.density)

    def pay(self, delta: Mapping[str, NDArray[np.float32]], layout: Layout, width: float) -> None:
        """Add to an update of a sub-network what earlier ones have left out of it."""
        places = layout.slices.get(width, {})
        for name, array in delta.items():
            if name in self.residual:
                np.add(array, self.residual[name][places.get(name, ())], out=array)

    def owe(self, left: Mapping[str, NDArray[np.float32]], layout: Layout, width: float) -> None:
        """Note what the last update has left out of them; what is owed elsewhere stays."""
        places = layout.slices.get(width, {})
        for name, rest in left.items():
            if name not in self.residual and not rest.any():
                continue
            whole = self.residual.setdefault(name, np.zeros(layout.shapes[name], np.float16))
            whole[places.get(name, ())] = torch.from_numpy(rest).half().numpy()  # several times quicker than numpy's

    def count(self, metrics: Mapping[str, float]) -> None:
        """Add a round to the counts."""
        for name, more in {"rounds": 1, "steps": metrics["steps"], "seconds": metrics["seconds"]}.items():
            self.counts[name] = self.counts.get(name, 0.0) + more

    def seconds_per_step(self) -> float:
        """Over this device's life; 0.0 before its first round."""
        return self.counts.get("seconds", 0.0) / max(self.counts.get("steps", 0.0), 1.0)


@dataclass(frozen=True)
class _Point:
    """A version."""

    version: str
    arrays: Mapping[str, NDArray[np.float32]]
    masks: Mapping[str, NDArray[np.bool_]] | None


def _left(steps: Sequence[tuple[str, bytes, bytes]], version: str) -> Sequence[tuple[str, bytes, bytes]]:
    """The steps after the one that leads to a version that is held: who answered too late holds more than is known."""
    versions = [each for each, _, _ in steps]
    return steps[versions.index(version) + 1 :] if version in versions else steps


def _walked(start: Start, point: _Point, steps: Sequence[tuple[str, bytes, bytes]]) -> _Point:
    for version, update, note in steps:
        arrays, masks = point.arrays, point.masks
        if note == masking.ENDED:
            masks = None
        elif note:
            masks = masking.from_bytes(note, masks, arrays, start.shapes)
        if update:
            found = decode(update, start.layout, mask=masks)
            if found.base.hex() != point.version:
                raise LearningError(f"an update starts from {found.base.hex()}, not from {point.version}")
            arrays = {name: array + found.arrays[name] for name, array in arrays.items()}
        arrays = arrays if masks is None else masking.apply(arrays, masks)
        if (got := version_of(arrays)) != version:
            raise LearningError(f"a step to version {version} leads to {got}")
        point = _Point(version, arrays, masks)
    return point


def _list(record: ConfigRecord, name: str) -> Sequence[Any]:
    value = record.get(name)
    if not isinstance(value, list):
        raise LearningError(f"of the message's record 'down', {name} is {value!r:.60}; want a list")
    return value


def _masks(record: ArrayRecord, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[np.bool_]]:
    bits = from_record(record)
    return {
        name: np.unpackbits(packed, count=math.prod(shapes[name])).reshape(shapes[name]).astype(np.bool_)
        for name, packed in bits.items()
    }
