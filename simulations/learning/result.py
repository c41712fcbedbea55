"""What a simulation brought, as JSON: the same bytes for the same question, on any machine of the same kind.

It has no wall-clock time, no path, and no figure of the machine that simulated. ``hash`` is the SHA-256 of all else.
What devices have among them is given as quantiles, so that it is as long for ten thousand as for a hundred.

Legend: N devices.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.compression.database import connect, explained
from headwater.server.federation.journal import FILE, KIND
from headwater.server.federation.survey import survey
from headwater.server.federation.versions import FOLDER, latest
from headwater.simulations.learning.grid import BEGIN

if TYPE_CHECKING:
    from headwater.server.federation.survey import RoundFacts
    from headwater.simulations.learning.fleet import Fleet

PARTS = 20
"""Quantiles are of each twentieth of the devices, the least and the most among them."""


def write_result(out: Path, asked: Mapping[str, Any], fleet: Fleet, path: Path) -> dict[str, Any]:
    """Read the journal of a simulation that has ended, and write what it says."""
    learnt = latest(out)
    found: dict[str, Any] = {
        "question": dict(asked),
        "version": learnt.version,
        "arrays": _arrays(learnt.arrays),
        "rounds": [_round(each) for each in survey(out, learnt.run, devices=False).rounds],
        "devices": _devices(out, learnt.run, fleet),
    }
    found["hash"] = hashlib.sha256(_text(found)).hexdigest()
    part = path.with_suffix(".part")
    part.write_bytes(_text(found))
    part.replace(path)
    return found


def _text(found: Mapping[str, Any]) -> bytes:
    return (json.dumps(found, indent=1, sort_keys=True) + "\n").encode()


def _arrays(arrays: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + b"\0" + np.ascontiguousarray(arrays[name], "<f4").tobytes())
    return digest.hexdigest()


def _round(each: RoundFacts) -> dict[str, Any]:
    """One round, in simulated time."""
    return {
        "round": each.round,
        "began_s": round(each.began - BEGIN, 3),
        "ended_s": None if each.ended is None else round(each.ended - BEGIN, 3),
        "states": dict(each.states),
        "bytes_up": each.bytes_up,
        "bytes_down": each.bytes_down,
        "facts": dict(each.facts),
    }


def _devices(out: Path, run: int, fleet: Fleet) -> dict[str, Any]:
    """How alike devices fared: of each figure of a device, its quantiles over the devices that have it."""
    figures = _figures(out, run)
    groups = {"all": np.ones(len(fleet), np.bool_), **_groups(fleet)}
    return {
        name: {
            "devices": int(members.sum()),
            **{
                figure: _quantiles(value for node, value in values.items() if members[fleet.numbers[node]])
                for figure, values in figures.items()
            },
        }
        for name, members in groups.items()
    }


def _groups(fleet: Fleet) -> dict[str, Any]:
    """Devices of each width, and those that lie."""
    numbers = range(len(fleet))
    found = {f"width {width:g}": np.array([fleet.width(n) == width for n in numbers]) for width in fleet.widths}
    return found | ({"hostile": fleet.hostile} if fleet.hostile.any() else {})


_FIGURES = {
    "asked": "count(*)",
    "believed": "sum(state = 'believed')",
    "bytes_up": "sum(bytes_up)",
    "bytes_down": "sum(bytes_down)",
    "seconds": "sum(json_extract(facts, '$.seconds'))",
    "loss": "avg(json_extract(facts, '$.loss'))",
}
_LAST = (
    "SELECT node, json_extract(facts, '$.accuracy') FROM tasks WHERE run = ?1 AND kind = 'evaluate' AND round = "
    "(SELECT max(round) FROM tasks WHERE run = ?1 AND kind = 'evaluate' AND state = 'believed') ORDER BY node"
)


def _figures(out: Path, run: int) -> dict[str, dict[int, float]]:
    """Of each figure, its value by node id: a few numbers a device, summed up by the database."""
    path = out / FOLDER / FILE
    db = connect(KIND, path, reading=True)
    try:
        with explained(KIND, path):
            query = ", ".join(_FIGURES.values())
            rows = db.execute(
                f"SELECT node, {query} FROM tasks WHERE run = ? AND kind = 'train' GROUP BY node ORDER BY node",  # noqa: S608
                (run,),
            ).fetchall()
            last = db.execute(_LAST, (run,)).fetchall()
    finally:
        db.close()
    found = {
        name: {row[0]: float(row[1 + index]) for row in rows if row[1 + index] is not None}
        for index, name in enumerate(_FIGURES)
    }
    accuracy = {node: float(value) for node, value in last if value is not None}
    return found | ({"accuracy": accuracy} if accuracy else {})


def _quantiles(values: Iterable[float]) -> dict[str, Any]:
    known = np.sort(np.fromiter(values, np.float64))
    if not len(known):
        return {}
    found = np.quantile(known, np.linspace(0, 1, PARTS + 1), method="nearest")
    return {"devices": len(known), "mean": round(float(known.mean()), 9), "quantiles": found.tolist()}
