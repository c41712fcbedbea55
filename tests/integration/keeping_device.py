"""A device that does nothing but keep frames and deliver them, and says what it does, to be killed at any moment.

    python keeping_device.py SPOOL FRAMES SERVER RUN

FRAMES has a bundle's id and some frames, in hex, a line each. Says `keep ID` before it keeps a frame, `kept ID` after,
`gone ID` when one was delivered. At the end of its standard input it keeps no more, and ends when its spool is empty.
"""

import asyncio
import itertools
import sys
from collections.abc import Collection
from pathlib import Path

from headwater.device.kept import KeptFrame
from headwater.device.link import Link
from headwater.device.link_options import LinkOptions
from headwater.device.spool import Spool

PAUSE_S = 0.01


class Telling(Spool):
    """Says which frames it deletes."""

    def delivered(self, ids: Collection[bytes]) -> None:
        super().delivered(ids)
        for each in ids:
            say("gone", each)


def say(word: str, frame_id: bytes) -> None:
    sys.stdout.write(f"{word} {frame_id.hex()}\n")
    sys.stdout.flush()


async def main(spool: Path, bundle_id: bytes, data: list[bytes], server: str, run: str) -> None:
    more = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    options = LinkOptions("keeper", bundle_id, first_pause_s=0.02, longest_pause_s=0.2)
    with Telling(spool, 64 << 20, 3600) as kept:
        async with Link(server.split(","), options, spool=kept) as link:
            for number in itertools.count(1):
                if more.done():
                    break
                frame = KeptFrame(link.session, number, 0, bundle_id, data[number % len(data)], name=f"{run}-{number}")
                say("keep", frame.id)
                await asyncio.to_thread(kept.keep, frame)
                say("kept", frame.id)
                await asyncio.sleep(PAUSE_S)
            while kept.stats.frames:  # noqa: ASYNC110 - another thread's work has no event here
                await asyncio.sleep(PAUSE_S)


if __name__ == "__main__":
    bundle, *frames = map(bytes.fromhex, Path(sys.argv[2]).read_text().split())
    asyncio.run(main(Path(sys.argv[1]), bundle, frames, sys.argv[3], sys.argv[4]))
