"""Work on records goes in its order, contents go side by side, and contents give way to frames."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from functools import partial

import pytest

from headwater.server.mail.disk import FILES_AT_ONCE, Disk

PATIENCE_S = 30.0


def test_records_wait_for_each_other_and_contents_do_not() -> None:
    async def main() -> list[str]:
        disk = Disk()
        done: list[str] = []
        together = threading.Barrier(FILES_AT_ONCE)
        await asyncio.gather(
            *(disk.to_the_end(lambda: together.wait(PATIENCE_S)) for _ in range(FILES_AT_ONCE)),
            *(disk.run(partial(done.append, f"record {n}")) for n in range(5)),
        )
        disk.close()
        return done

    assert asyncio.run(main()) == [f"record {n}" for n in range(5)]


def test_who_is_cancelled_leaves_only_when_its_work_is_done() -> None:
    async def main() -> list[str]:
        disk, going, let = Disk(), threading.Event(), threading.Event()
        order: list[str] = []

        def work() -> None:
            going.set()
            let.wait(PATIENCE_S)
            order.append("done")

        waiting = asyncio.create_task(disk.to_the_end(work))
        await asyncio.to_thread(going.wait, PATIENCE_S)
        waiting.cancel()
        asyncio.get_running_loop().call_soon(let.set)
        with pytest.raises(asyncio.CancelledError):
            await waiting
        order.append("left")
        disk.close()
        return order

    assert asyncio.run(main()) == ["done", "left"]


@pytest.mark.skipif(sys.platform != "linux", reason="nice is a whole process's own elsewhere")
def test_contents_give_way() -> None:
    async def main() -> int:
        disk = Disk()
        found = await disk.to_the_end(_nice)
        disk.close()
        return found

    assert asyncio.run(main()) > _nice()


def _nice() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
