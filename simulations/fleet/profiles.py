"""Classes of device by name: the files in boards/, and any other that `headwater device profile` wrote.

Each figure in them has a range and says where it is from; none of the ready ones was measured on the board itself with
this software, but put together from published measurements. Measure yours before you buy a thousand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headwater.compression.errors import SettingsError
from headwater.compression.settings import nearest, read_file
from headwater.device.hardware import Hardware
from headwater.simulations.fleet.reading import read

FOLDER = Path(__file__).parent / "boards"


def ready() -> tuple[str, ...]:
    """Names of the classes that come along."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def load(name: str, folder: Path | None = None) -> Hardware:
    """The class of that name, or of a file: `name` ends in .toml, and is relative to `folder`.

    What a file leaves out is that of the class that its key ``like`` names. Raises :class:`SettingsError` for an
    unknown name, with the nearest one, and for what is wrong in a file.
    """
    path = (folder or Path()) / name if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        raise SettingsError(f"there is no class of device {name}, nor such a file; {nearest(name, ready())}")
    return read(Hardware, _completed(read_file(path), path), str(path))


def _completed(document: dict[str, Any], path: Path) -> dict[str, Any]:
    """With what another class has where this one says nothing; heads that were measured stand alone."""
    like = document.pop("like", None)
    if like is None:
        return document
    if like not in ready():
        raise SettingsError(f"{path}: like is {like!r}; {nearest(str(like), ready())}")
    rest = read_file(FOLDER / f"{like}.toml")
    if "head_ms" in document:
        del rest["head_ms_per_mmac"]
    return {**rest, **document}
