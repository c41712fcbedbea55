"""Where pieces of a study leave what they found: a folder of JSON files, and the results that other machines left."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.study.runner import Piece


class Records:
    """A study's folder, ``seed0/NAME.json`` of each finished piece and ``seed0/NAME/`` of its checkpoints."""

    def __init__(self, folder: Path, elsewhere: Sequence[dict[str, Any]] = ()) -> None:
        """Nothing is read or written yet; ``elsewhere`` are records of pieces that were done on other machines."""
        self.folder = folder
        self.elsewhere = {(record["piece"], record["seed"]): record for record in elsewhere}

    def work(self, piece: Piece) -> Path:
        """The folder of a piece's checkpoints."""
        return self.folder / f"seed{piece.seed}" / piece.name

    def record(self, name: str, seed: int) -> dict[str, Any] | None:
        """What a finished piece left, here or elsewhere; None where it is not finished."""
        path = self._path(name, seed)
        if not path.exists():
            return self.elsewhere.get((name, seed))
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return record

    def has(self, name: str, seed: int) -> bool:
        """Whether a finished piece is in the folder, with what others build on."""
        return self._path(name, seed).exists()

    def keep(self, record: dict[str, Any]) -> None:
        """Write a finished piece's record, in one step."""
        write_json(self._path(record["piece"], record["seed"]), record)

    def _path(self, name: str, seed: int) -> Path:
        return self.folder / f"seed{seed}" / f"{name}.json"


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401 - anything that JSON holds
    """Replace a file in one step, so that a kill leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, suffix=".part", delete=False) as file:
        json.dump(value, file, separators=(",", ":"), allow_nan=False)
        file.write("\n")
    Path(file.name).replace(path)
