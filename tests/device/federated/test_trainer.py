"""The training process, a real one: it answers, forgets nothing, keeps to its room, and is told from its end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headwater.device.federated.jobs import Answer
from headwater.device.federated.trainer import DiedError, HopelessError, Trainer
from headwater.device.federated.worker import Worker, load, outlives_runs
from tests.device.federated.questions import APP, job, question, reply

pytest.importorskip("flwr", reason="federated learning needs the extra [federated]")


@asynccontextmanager
async def training(folder: Path, app: str = APP, nice: int = 0, **changes: float) -> AsyncIterator[Trainer]:
    """Not at its own priority, at which it would never run on a machine that is busy."""
    trainer = Trainer(app, folder / "training.log", nice=nice, **changes)
    async with asyncio.timeout(300):
        try:
            yield trainer
        finally:
            await trainer.close()


def process_of(trainer: Trainer) -> asyncio.subprocess.Process:
    assert trainer._process is not None
    return trainer._process


def state_of(trainer: Trainer) -> str:
    return Path(f"/proc/{process_of(trainer).pid}/stat").read_text().rpartition(")")[2].split()[0]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(300):
        while not condition():  # noqa: ASYNC110 - another process's doing, of which no event tells
            await asyncio.sleep(0.01)


async def test_answers_and_its_context_goes_on_by_run(tmp_path: Path) -> None:
    async with training(tmp_path) as trainer:
        first = await trainer.answer(job(tmp_path, question()))
        pid = process_of(trainer).pid
        contexts = {first.run: first.context or ""}
        second = await trainer.answer(job(tmp_path, question(number=2), contexts))
        other = await trainer.answer(job(tmp_path, question(run=6), contexts))
        assert process_of(trainer).pid == pid, "it stays for the next message"
    steps = [reply(tmp_path, each.envelope, each.content) for each in (first, second, other)]
    sums = [message.content.array_records["arrays"].to_numpy_ndarrays()[0] - np.arange(6) for message in steps]
    assert [set(each) for each in sums] == [{1.0}, {2.0}, {1.0}]
    assert (first.run, other.run) == ("5", "6")
    assert steps[0].metadata.reply_to_message_id == "message-1"
    assert "steps 2" in (tmp_path / "training.log").read_text()


async def test_it_runs_when_nobody_else_wants_to(tmp_path: Path) -> None:
    async with training(tmp_path, nice=19) as trainer:
        answer = asyncio.create_task(trainer.answer(job(tmp_path, question())))
        await until(lambda: trainer._process is not None)
        pid = process_of(trainer).pid
        await until(lambda: os.sched_getscheduler(pid) == os.SCHED_IDLE)
        assert os.getpriority(os.PRIO_PROCESS, pid) == 19
        assert os.getsid(pid) == os.getsid(0), "among sessions its priority would not count"
        assert os.getpgid(pid) == pid, "signals of the terminal are the agent's"
        answer.cancel()
        await asyncio.wait([answer])


async def test_the_same_message_has_the_same_reply_in_another_process(tmp_path: Path) -> None:
    answers, parcel = [], question()
    for number in range(2):
        async with training(tmp_path) as trainer:
            if number:
                await trainer.answer(job(tmp_path, question(number=9)))  # which takes from the generators
            answers.append(await trainer.answer(job(tmp_path, parcel)))
    assert answers[0].content == answers[1].content
    assert answers[0].context == answers[1].context


def test_a_module_may_ask_for_one_state_in_all_runs(tmp_path: Path) -> None:
    worker = Worker(load(APP), 1 << 50, outlives_runs=True)
    first = worker.answer(job(tmp_path, question(run=5)))
    assert isinstance(first, Answer)
    second = worker.answer(job(tmp_path, question(run=6), {first.run: first.context or ""}))
    assert isinstance(second, Answer)
    message = reply(tmp_path, second.envelope, second.content)
    assert message.content.array_records["arrays"].to_numpy_ndarrays()[0][0] == 2.0
    assert message.metadata.run_id == 6
    assert not outlives_runs(APP)


async def test_an_app_s_error_is_its_reply_and_leaves_context_and_process_alone(tmp_path: Path) -> None:
    async with training(tmp_path) as trainer:
        for what, why in (("raise", "the app does not want to"), ("eat", "Unable to allocate 8.00 GiB")):
            answer = await trainer.answer(job(tmp_path, question(what)))
            assert answer.context is None
            assert why in reply(tmp_path, answer.envelope, answer.content).error.reason
        pid = process_of(trainer).pid
        assert (await trainer.answer(job(tmp_path, question()))).context
        assert process_of(trainer).pid == pid


async def test_a_process_that_ends_is_told_with_its_last_words_and_replaced(tmp_path: Path) -> None:
    async with training(tmp_path) as trainer:
        with pytest.raises(DiedError, match="ended with status 3: this is the end"):
            await trainer.answer(job(tmp_path, question("abort")))
        with pytest.raises(DiedError, match="ended with signal 9"):
            await trainer.answer(job(tmp_path, question("die")))


async def test_what_will_never_have_a_reply_is_hopeless(tmp_path: Path) -> None:
    async with training(tmp_path, seconds=0.1) as trainer:
        with pytest.raises(HopelessError, match="no message of Flower"):
            await trainer.answer(job(tmp_path, replace(question(), content=b"\x07what is this?")))
        with pytest.raises(HopelessError, match=r"more than twice its 0.1 s of processor time"):
            await trainer.answer(job(tmp_path, question("spin")))


@pytest.mark.parametrize("app", ["tests.device.federated.nothing:app", "json:app"])
async def test_an_app_that_cannot_be_loaded_is_hopeless(tmp_path: Path, app: str) -> None:
    async with training(tmp_path, app) as trainer:
        with pytest.raises(HopelessError, match=f"{app} cannot be loaded"):
            await trainer.answer(job(tmp_path, question()))


async def test_it_stands_still_while_it_is_held(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with training(tmp_path, patience_s=3600.0) as trainer:
        answer = asyncio.create_task(trainer.answer(job(tmp_path, question("wait", path=str(gate)))))
        await until(Path(f"{gate}.begun").exists)
        trainer.reins.hold("frames")
        await until(lambda: state_of(trainer) == "T")
        gate.touch()
        trainer.reins.hold("surroundings")
        trainer.reins.release("frames")
        assert state_of(trainer) == "T"
        trainer.reins.release("surroundings")
        assert (await answer).context


async def test_it_is_ended_when_nobody_asks_for_long(tmp_path: Path) -> None:
    async with training(tmp_path, warm_s=0.0) as trainer:
        await trainer.answer(job(tmp_path, question()))
        await until(lambda: trainer._process is None)


async def test_cancelling_ends_it(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with training(tmp_path) as trainer:
        answer = asyncio.create_task(trainer.answer(job(tmp_path, question("wait", path=str(gate)))))
        await until(Path(f"{gate}.begun").exists)
        pid = process_of(trainer).pid
        answer.cancel()
        await asyncio.wait([answer])
        assert not lives(pid)


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
