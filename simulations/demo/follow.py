"""Records of a running device, as it writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.device.record import FrameRecord

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class RecordFollower:
    """Reads what a file of JSON lines has gained; a last line that is not whole yet waits for its rest."""

    def __init__(self, path: Path) -> None:
        """The file need not be there yet."""
        self.path = path
        self._offset = 0

    def read(self) -> Iterator[FrameRecord]:
        """The records that came since the last call."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                yield FrameRecord.from_json(line.decode())
