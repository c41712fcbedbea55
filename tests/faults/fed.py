"""An agent that is shown one picture after the other, and the server and disks that it stands on."""

from __future__ import annotations

import io
import os
from pathlib import Path

from PIL import Image

from benchmarks.soaking.footing import Footing
from headwater.compression.bundle import Bundle
from headwater.device.record import FrameRecord
from headwater.server.archive import Chosen, read
from tests import tiny
from tests.integration.processes import AgentProcess


class Fed(AgentProcess):
    """``headwater device`` that reads pictures from its standard input; records and spool are on the footing's disk."""

    def __init__(self, bundle: Path, server: str, footing: Footing, *more: str) -> None:
        self.records, self.spool = footing.folder / "records.jsonl", footing.folder / "spool.db"
        words = {"--bundle": bundle, "--server": server, "--source": "-", "--tasks": "shape", "--retry-s": "0.2"}
        words |= {"--records": self.records, "--spool": self.spool}
        plain = [str(word) for pair in words.items() for word in pair]
        super().__init__(*plain, "--json", *more, env={**os.environ, **footing.env})
        self.shown: list[FrameRecord] = []

    async def show(self, seed: int) -> FrameRecord:
        """Show it the picture of a seed, and wait for what it makes of it."""
        assert self.process.stdin is not None
        file = io.BytesIO()
        Image.fromarray(tiny.image(seed)[0]).save(file, "PNG")
        self.process.stdin.write(file.getvalue())
        line = await self.line()
        assert line, "the agent has ended"
        self.shown.append(FrameRecord.from_json(line))
        return self.shown[-1]


def save(bundle: Bundle, folder: Path) -> Path:
    """The bundle as a file."""
    path = folder / "tiny.zip"
    bundle.save(path)
    return path


def stored(archive: Path) -> list[str]:
    """Names of the frames in an archive, in the order of arrival."""
    return [str(facts["name"]) for facts, _ in read(archive, Chosen())]
