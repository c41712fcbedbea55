"""What is on the disk: a message's way, once and for all."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from headwater.compression import database
from headwater.compression.errors import LearningError, StorageError, TransferError
from headwater.device.federated.jobs import Answer
from headwater.device.federated.state import KEPT_REPLIES, KEPT_RUNS, LATE_S, State
from headwater.protos import edge_pb2 as pb


def offer(number: int = 1, envelope: bytes = b"envelope", content: bytes = b"c", valid_s: float = 60.0) -> pb.Offer:
    return pb.Offer(
        offer=number,
        envelope=envelope,
        content_sha256=hashlib.sha256(content).digest(),
        content_bytes=7,
        valid_for_ms=int(valid_s * 1e3),
    )


def answer(state: State, reply: bytes = b"reply", context: bytes | None = b"context", run: str = "5") -> Answer:
    kept = None if context is None else state.blobs.put(context).hex()
    return Answer(run, base64.b64encode(b"about the reply").decode(), state.blobs.put(reply).hex(), kept)


def blobs(state: State) -> set[bytes]:
    return {path.read_bytes() for path in state.blobs.folder.glob("*")}


def test_a_message_s_way(tmp_path: Path) -> None:
    with State(tmp_path) as state:
        task = state.offered(offer(number=(1 << 64) - 1))
        assert (task.phase, task.offer, task.envelope, task.size) == ("offered", (1 << 64) - 1, b"envelope", 7)
        state.fetched(task.number)
        state.begun(task.number, {"memory-bytes": 5, "bundle": "b"})
        assert state.first("offered") is None
        state.commit(task.number, answer(state))
        done = state.first("answered")
        assert done is not None
        assert (done.reply_envelope, done.config) == (b"about the reply", {"memory-bytes": 5, "bundle": "b"})
        assert state.contexts() == {"5": state.blobs.put(b"context").hex()}
        state.delivered(task.number)
        assert state.first("answered") is None


def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    def fetch(state: State, number: int) -> None:
        state.blobs.put(b"c")
        state.fetched(number)

    for phase, step in (
        ("offered", fetch),
        ("fetched", lambda state, number: state.commit(number, answer(state))),
        ("answered", lambda state, number: state.delivered(number)),
    ):
        with State(tmp_path) as state:
            task = state.offered(offer()) if phase == "offered" else state.first(phase)  # type: ignore[arg-type]
            assert task is not None
            step(state, task.number)
    with State(tmp_path) as state:
        assert state.contexts()
        assert {b"reply", b"context"} == blobs(state)


def test_a_content_that_a_power_cut_damaged_is_fetched_again(tmp_path: Path) -> None:
    with State(tmp_path) as state:
        tasks = [state.offered(offer(content=content)) for content in (b"whole", b"damaged", b"lost")]
        paths = [state.blobs.path(state.blobs.put(content)) for content in (b"whole", b"damaged", b"lost")]
        for task in tasks:
            state.fetched(task.number)
    paths[1].write_bytes(b"\0amaged")
    paths[2].unlink()
    with State(tmp_path) as state:
        found = [state.get(each.number) for each in tasks]
        assert [each and each.phase for each in found] == ["fetched", "offered", "offered"]
        assert blobs(state) == {b"whole"}


def test_the_same_message_under_another_number_is_the_same_message(tmp_path: Path) -> None:
    with State(tmp_path) as state:
        first = state.offered(offer(number=1))
        state.fetched(first.number)
        again = state.offered(offer(number=2))
        assert (again.number, again.offer, again.phase) == (first.number, 2, "fetched")
        assert state.offered(offer(number=3, envelope=b"another")).number != first.number


def test_a_reply_that_is_asked_for_again_is_handed_in_again_while_it_is_kept(tmp_path: Path) -> None:
    with State(tmp_path) as state:
        for number in range(KEPT_REPLIES + 1):
            task = state.offered(offer(number, envelope=bytes([number])))
            state.commit(task.number, answer(state, reply=bytes([number]), context=bytes([number])))
            state.delivered(task.number)
        assert state.offered(offer(envelope=bytes([1]))).phase == "answered"
        assert state.offered(offer(envelope=bytes([0]))).phase == "delivered", "the reply is gone, but it was answered"
        assert len(blobs(state)) == KEPT_REPLIES, "with the context, which is the last reply's bytes"


def test_reply_and_context_count_both_or_neither(tmp_path: Path) -> None:
    with State(tmp_path) as state:
        task = state.offered(offer())
        state.fetched(task.number)
        lost = answer(state)
        state.blobs.forget(bytes.fromhex(lost.context or ""))
        with pytest.raises(LearningError, match="but that is not in"):
            state.commit(task.number, lost)
        assert not state.contexts()
        assert state.first("fetched") is not None


def test_an_error_reply_leaves_the_context(tmp_path: Path) -> None:
    with State(tmp_path) as state:
        for number, context in enumerate((b"first", None)):
            task = state.offered(offer(envelope=bytes([number])))
            state.commit(task.number, answer(state, context=context))
        assert state.contexts() == {"5": state.blobs.put(b"first").hex()}


def test_contexts_of_the_last_runs_are_kept(tmp_path: Path) -> None:
    with State(tmp_path) as state:
        for number in range(KEPT_RUNS + 2):
            task = state.offered(offer(envelope=bytes([number])))
            state.commit(task.number, answer(state, context=bytes([number]), run=str(number)))
        assert set(state.contexts()) == {str(number) for number in range(2, KEPT_RUNS + 2)}
        assert bytes([0]) not in blobs(state)


def test_what_a_kill_left_behind_is_swept_away_and_what_is_coming_is_not(tmp_path: Path) -> None:
    with State(tmp_path) as state:
        task = state.offered(offer())
        (state.blobs.folder / f"{task.content}.part").write_bytes(b"half")
        (state.blobs.folder / f"{'0' * 64}.part").write_bytes(b"of nobody")
        (state.blobs.folder / "new-xyz").write_bytes(b"half a context")
        state.blobs.put(b"a reply that was never committed")
    with State(tmp_path) as state:
        assert blobs(state) == {b"half"}


def test_what_has_no_room_is_refused(tmp_path: Path) -> None:
    with State(tmp_path, limit_bytes=5) as state:
        with pytest.raises(TransferError, match="7 more would go beyond its 5"):
            state.offered(offer())
        assert state.first("offered") is None


def test_a_message_is_forgotten_long_after_its_lifetime(tmp_path: Path) -> None:
    now = [1000.0]
    clock: Callable[[], float] = lambda: now[0]  # noqa: E731 - a clock
    with State(tmp_path, clock=clock) as state:
        task = state.offered(offer(valid_s=10))
        state.commit(task.number, answer(state))
        now[0] += 10 + LATE_S
        state.expire()
        assert state.get(task.number) is not None
        now[0] += 1
        state.expire()
        assert state.get(task.number) is None
        assert blobs(state) == {b"context"}


def test_one_process_uses_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "LOCK_S", 0.01)
    with State(tmp_path), pytest.raises(StorageError, match="used by another process"):
        State(tmp_path)


def test_it_is_for_nobody_else_to_read(tmp_path: Path) -> None:
    with State(tmp_path / "learning"):
        assert (tmp_path / "learning").stat().st_mode & 0o077 == 0
