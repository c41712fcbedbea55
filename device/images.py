"""Pictures that a server sends for people to look at, as files in a folder."""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.compression.errors import SettingsError
from headwater.device.disk import is_disk_s

if TYPE_CHECKING:
    from collections.abc import Mapping

_NOT_IN_A_NAME = re.compile(r"[^\w.-]+")
LONGEST_STEM = 60

_log = logging.getLogger(__name__)


class ImageFolder:
    """Where the pictures of image tasks go, ``20260504T091233120-000007-cell0031-reconstruct.png``."""

    def __init__(self, path: Path) -> None:
        """Make the folder if it is not there; raises :class:`SettingsError` if it cannot be."""
        self.path = path
        self._complained = self._made = False
        try:
            self._make()
        except OSError as error:
            if not is_disk_s(error):  # else it is tried again with each picture
                raise SettingsError(f"save_images is {path}: {error.strerror}; name another folder.") from error

    def _make(self) -> None:
        """Once: who deletes it later does not want it."""
        if not self._made:
            self.path.mkdir(parents=True, exist_ok=True)
            self._made = True

    def save(self, name: str, taken: str, sequence: int, images: Mapping[str, bytes]) -> dict[str, str]:
        """Do as :meth:`write`, but where the disk takes nothing leave the pictures out: no answer depends on them."""
        try:
            files = self.write(name, taken, sequence, images)
        except SettingsError as error:
            if not self._complained:  # once, not for each picture
                _log.error("%s", error)
            self._complained = True
            return {}
        self._complained = False
        return files

    def write(self, name: str, taken: str, sequence: int, images: Mapping[str, bytes]) -> dict[str, str]:
        """Write the PNG of each task; returns the files by task, as records name them.

        Args:
            name: of the picture that was answered, in its source.
            taken: when, ISO 8601.
            sequence: number of the frame.
            images: PNG bytes by task.

        Raises:
            SettingsError: if a file cannot be written.
        """
        moment = re.sub(r"[^\dT]", "", taken.partition("+")[0])
        stem = _NOT_IN_A_NAME.sub("_", Path(name).stem)[:LONGEST_STEM] or "picture"
        return {
            task: str(self._write(f"{moment}-{sequence:06}-{stem}-{task}.png", data)) for task, data in images.items()
        }

    def _write(self, name: str, data: bytes) -> Path:
        path = self.path / name
        try:
            self._make()
            path.write_bytes(data)
        except OSError as error:
            with suppress(OSError):
                path.unlink(missing_ok=True)  # a part of a picture is none
            raise SettingsError(
                f"a picture cannot be saved as {path}: {error.strerror}; name another folder"
            ) from error
        return path
