"""The agent's hand on the training process: starts it, gives it one message at a time, holds it, ends it.

    answer(job) ──> started if need be ──> the reply, or why there is none
                         │
                         └── stopped (SIGSTOP) while it has to wait (reins.py)

The process is kept for a while after a message, since loading torch and Flower takes seconds, and is then ended, since
it takes memory. What it says to people goes to a file.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.compression.errors import LearningError
from headwater.device.federated.jobs import Answer, Failed, Ready, from_line, to_line
from headwater.device.federated.reins import PATIENCE_S, Reins

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator

    from headwater.device.federated.jobs import Job, Word

WARM_S = 300.0
"""How long the process waits for another message."""
LOOK_S = 1.0
"""How often the processor time that it has taken is looked at."""
LONGEST_LINE = 1 << 24
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    # Large blocks go back to the system when they are freed, or the peak is of what lies in pieces on glibc's heap.
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "1048576",
    # Those blocks in huge pages where there are any: a page at a time, a fifth to a third of training was page faults.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""Of the process, where the agent's own environment does not say otherwise."""
_TAIL_BYTES = 2048

_log = logging.getLogger(__name__)


class DiedError(LearningError):
    """The training process ended over a message; it may be tried again."""


class HopelessError(LearningError):
    """There will be no reply to the message, however often it is tried."""


class Trainer:
    """One training process at a time; used on the event loop."""

    def __init__(
        self,
        app: str,
        log: Path,
        *,
        nice: int = 19,
        seconds: float | None = None,
        warm_s: float = WARM_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Prepare; the process is started with its first message.

        Args:
            app: MODULE:NAME of a ClientApp.
            log: file for what the process prints; begun anew with each process.
            nice: from 0 to 19, at which it runs only when nobody else wants to.
            seconds: processor time of a message, beyond which it is ended; None for any.
            warm_s: how long the process waits for another message.
            patience_s: how long frames may keep it from running at all.
        """
        self.reins = Reins(self._pull, patience_s)
        """What may hold it."""
        self._app = app
        self._log = log
        self._nice = nice
        self._seconds = seconds
        self._warm_s = warm_s
        self._process: Process | None = None
        self._cooling: asyncio.TimerHandle | None = None
        self._dying: set[asyncio.Task[int]] = set()

    # ------------------------------------------------------------ messages

    async def answer(self, job: Job) -> Answer:
        """Have a message answered.

        Cancelling ends the process.

        Raises:
            DiedError: the process ended over it.
            HopelessError: the app cannot be loaded, the bytes are no message, or it took more time than it may.
        """
        async with self._used() as process:
            watch = asyncio.create_task(self._watch(process), name="headwater-training-time")
            try:
                assert process.stdin is not None
                process.stdin.write(to_line(job))
                word = await self._word(process)
            except DiedError as error:
                if not (watch.done() and watch.result()):
                    raise
                raise HopelessError(f"it took more than twice its {self._seconds:g} s of processor time") from error
            finally:
                watch.cancel()
        if isinstance(word, Failed):
            raise HopelessError(word.reason)
        assert isinstance(word, Answer)
        return word

    @asynccontextmanager
    async def _used(self) -> AsyncIterator[Process]:
        """The process, while a message needs it: one that did not come to its end may be anywhere, and is ended."""
        if self._cooling is not None:
            self._cooling.cancel()
        try:
            process = await self._started()
            self.reins.begin()
            yield process
        except BaseException:
            await self.close()
            raise
        finally:
            self.reins.end()
        self._cooling = asyncio.get_running_loop().call_later(self._warm_s, self._cool)

    async def _started(self) -> Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "headwater.device.federated.worker"),
                *(str(os.getpid()), str(self._nice), self._app),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=LONGEST_LINE,
                # Ctrl-C is for the agent. The session is the agent's: where Linux shares out the processor by sessions
                # first (autogroup), a process in one of its own has as much of it as the head, whatever its priority.
                process_group=0,
                env={**ENVIRONMENT, **os.environ},
            )
        word = await self._word(self._process)
        if isinstance(word, Failed):
            raise HopelessError(word.reason)
        assert isinstance(word, Ready)
        _log.info("the training process takes %d MiB idle", word.idle_bytes >> 20)
        return self._process

    async def _word(self, process: Process) -> Word:
        assert process.stdout is not None
        line = await process.stdout.readline()
        if line.endswith(b"\n"):
            return from_line(line)
        number = await process.wait()
        how = f"signal {-number}" if number < 0 else f"status {number}"
        raise DiedError(f"the training process ended with {how}{self._last_words()}")

    def _last_words(self) -> str:
        with suppress(OSError), self._log.open("rb") as log:
            log.seek(max(self._log.stat().st_size - _TAIL_BYTES, 0))
            lines = log.read().decode(errors="replace").strip().splitlines()
            return f": {lines[-1]}" if lines else ""
        return ""

    async def _watch(self, process: Process) -> bool:
        """End a message that takes twice its processor time; whether it did."""
        if self._seconds is None:
            return False
        with suppress(FileNotFoundError):  # it has ended by itself
            left_s = 2 * self._seconds
            end_s = cpu_s(process.pid) + left_s
            while left_s > 0:
                await asyncio.sleep(min(left_s, LOOK_S))
                left_s = end_s - cpu_s(process.pid)
            _send(process, signal.SIGKILL)
            return True
        return False

    def _pull(self, stop: bool) -> None:  # noqa: FBT001 - what Reins calls
        if self._process is not None:
            _send(self._process, signal.SIGSTOP if stop else signal.SIGCONT)

    def _cool(self) -> None:
        """It has waited for long enough."""
        process, self._process = self._process, None
        if process is not None:
            _send(process, signal.SIGKILL)
            task = asyncio.ensure_future(process.wait())
            self._dying.add(task)
            task.add_done_callback(self._dying.discard)

    async def close(self) -> None:
        """End the process; the next message starts another one."""
        if self._cooling is not None:
            self._cooling.cancel()
        self._cool()
        await asyncio.gather(*self._dying)


def _send(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(number)


def cpu_s(pid: int) -> float:
    """Processor time that a process has taken, seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
