"""The arrays of versions on disk, and what came of the rounds: for the process that runs them and who publishes.

    STATE/federation/rounds.sqlite                the journal
    STATE/federation/versions/RUN-ROUND.safetensors after a round; round 0 is what the run began from
        "arrays/NAME"   what devices hold that are up to date, to the last bit
        "rest/NAME"     what updates down have left over so far
        "mean/NAME"     the running mean of versions, where the result is one

`rest` is what the server learnt and its updates have not told devices yet (error feedback: Karimireddy et al., 2019,
arXiv:1901.09847; both ways: Tang et al., "DoubleSqueeze", 2019, arXiv:1905.05957). A bundle is built from the sum: it
carries all weights anyway. A round that tells devices nothing has the version of the one before and another rest, so
files are named by rounds.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from headwater.compression.database import connect, explained
from headwater.compression.errors import LearningError
from headwater.server.federation.journal import FILE, KIND

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwater.server.federation.averaging import Arrays

FOLDER = "federation"


@dataclass(frozen=True)
class Held:
    """One version's arrays."""

    version: str
    arrays: Arrays = field(repr=False)
    rest: Arrays = field(repr=False)
    mean: Arrays = field(default_factory=dict, repr=False)

    def result(self) -> dict[str, NDArray[np.float32]]:
        """What is measured and published: the running mean, where there is one, or what was learnt last."""
        return dict(self.mean) if self.mean else self.exact()

    def exact(self) -> dict[str, NDArray[np.float32]]:
        """What was learnt, whether devices were told or not."""
        return {name: array + self.rest[name] if name in self.rest else array for name, array in self.arrays.items()}


@dataclass(frozen=True)
class Learnt:
    """What rounds have brought."""

    version: str
    arrays: dict[str, NDArray[np.float32]] = field(repr=False)
    """The result of what was learnt: of this a bundle is built."""
    bundle_id: bytes
    """Of the bundle that the rounds began from."""
    run: int
    round: int
    finished: bool
    """Whether the run has come to its end."""


class Versions:
    """The folder of arrays."""

    def __init__(self, folder: Path) -> None:
        """Make the folder if it is not there."""
        self._folder = folder / "versions"
        self._folder.mkdir(parents=True, exist_ok=True)

    def save(self, run: int, number: int, held: Held) -> None:
        """Write what a round ended with; a file that is there is whole, whenever the process is killed."""
        content = save(
            {f"arrays/{name}": np.ascontiguousarray(array) for name, array in held.arrays.items()}
            | {f"rest/{name}": np.ascontiguousarray(array) for name, array in held.rest.items()}
            | {f"mean/{name}": np.ascontiguousarray(array) for name, array in held.mean.items()},
            {"version": held.version},
        )
        path = self._path(run, number)
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)

    def load(self, run: int, number: int) -> Held:
        """Read what a round ended with; raises :class:`LearningError` if it is not there."""
        path = self._path(run, number)
        try:
            with safe_open(path, "numpy") as file:
                version = (file.metadata() or {})["version"]
            stored = load_file(path)
        except (OSError, SafetensorError, KeyError) as error:
            raise LearningError(
                f"what round {number} of run {run} ended with cannot be read from {path} ({error}); begin anew from "
                "the bundle with --anew"
            ) from error
        return Held(version, *(_under(part, stored) for part in ("arrays/", "rest/", "mean/")))

    def keep(self, run: int, numbers: Iterable[int]) -> None:
        """Of a run remove all rounds but these."""
        wanted = {self._path(run, number) for number in numbers}
        for path in set(self._folder.glob(f"{run}-*.safetensors")) - wanted:
            path.unlink(missing_ok=True)

    def _path(self, run: int, number: int) -> Path:
        return self._folder / f"{run}-{number}.safetensors"


def _under(prefix: str, stored: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    return {name.removeprefix(prefix): array for name, array in sorted(stored.items()) if name.startswith(prefix)}


def latest(state: Path) -> Learnt:
    """What the rounds in a state folder have brought so far; raises :class:`LearningError` if there were none."""
    path = state / FOLDER / FILE
    if not path.is_file():
        raise LearningError(f"there were no rounds in {state} yet; run headwater server federate --state {state}")
    db = connect(KIND, path, reading=True)
    try:
        with explained(KIND, path):
            found = db.execute(
                "SELECT r.version, runs.bundle, runs.run, r.round, runs.status FROM rounds r JOIN runs USING (run) "
                "WHERE r.phase = 'closed' ORDER BY runs.run DESC, r.round DESC LIMIT 1"
            ).fetchone()
    finally:
        db.close()
    if found is None:
        raise LearningError(f"no round in {state} has come to its end yet")
    version, bundle, run, number, status = found
    return Learnt(version, Versions(state / FOLDER).load(run, number).result(), bundle, run, number, status == "done")
