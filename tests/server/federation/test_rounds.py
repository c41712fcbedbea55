"""Synchronous rounds over a toy fleet: what is learnt, what travels; neither order nor a kill changes a byte."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from flwr.app import Message

from headwater.compression.errors import LearningError, SettingsError
from headwater.compression.learning.arrays import version_of
from headwater.compression.updates import Scheme, decode, encode
from headwater.protos.nodes import node_id
from headwater.server.federation import inprocess
from headwater.server.federation.companion import Ending
from headwater.server.federation.journal import Journal
from headwater.server.federation.versions import FOLDER, Versions, latest
from tests.server.federation import fleets, toy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flwr.app import ConfigRecord

    from headwater.server.federation.averaging import Arrays, Contribution
    from headwater.server.federation.settings import RoundSettings

SMALL = {"up": toy.scheme(values="ternary", keep=0.3), "down": toy.scheme(values="int8", keep=0.5)}


def _states(folder: Path, number: int, run: int = 1) -> dict[str, str]:
    look = fleets.strategy(folder)
    try:
        return {task.device: task.state for task in look.journal.tasks(run, number)}
    finally:
        look.journal.close()


def test_a_fleet_of_unequal_devices_learns(tmp_path: Path) -> None:
    arrays = fleets.run(fleets.strategy(tmp_path, fleets.settings(rounds=6)), fleets.grid())
    assert toy.error_of(arrays) < 0.15 * toy.error_of(toy.ZERO)


def test_ids_of_64_bits_as_flower_s_own_superlink_draws_them_are_ids_like_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = fleets.run(fleets.strategy(tmp_path / "usual"), fleets.grid())
    monkeypatch.setattr(inprocess, "node_id", lambda name: node_id(name) + (1 << 63))
    grid = fleets.grid()
    assert min(grid.nodes) > 1 << 63
    arrays = fleets.run(fleets.strategy(tmp_path / "long"), grid)
    assert fleets.bytes_of(arrays) == fleets.bytes_of(usual)
    assert _states(tmp_path / "long", 2) == dict.fromkeys(fleets.FIVE, "believed")
    with closing(Journal(tmp_path / "long", fleets.Clock())) as journal:
        assert {task.node for task in journal.tasks(1)} == journal.work().keys() == grid.nodes.keys()
        assert all(journal.holds(node) for node in grid.nodes)


def test_coded_updates_learn_too_and_nothing_they_leave_out_is_lost(tmp_path: Path) -> None:
    grid = fleets.grid()
    arrays = fleets.run(fleets.strategy(tmp_path, fleets.settings(rounds=8, **SMALL)), grid)
    assert toy.error_of(arrays) < 0.15 * toy.error_of(toy.ZERO)
    held = Versions(tmp_path).load(1, 8)
    assert any(rest.any() for rest in held.rest.values())
    assert fleets.bytes_of(held.exact()) == fleets.bytes_of(arrays)
    assert version_of(held.arrays) == held.version


def test_the_result_is_a_running_mean_and_devices_go_on_from_the_last_version(tmp_path: Path) -> None:
    alone = [fleets.run(fleets.strategy(tmp_path / f"to-{n}", _told(n, 1)), fleets.grid()) for n in (1, 2, 3, 4)]
    measured: list[Arrays] = []
    rounds = fleets.strategy(tmp_path / "mean", _told(4, 3), measure=lambda arrays: measured.append(arrays) or {})
    result = fleets.run(rounds, fleets.grid())
    held = Versions(tmp_path / "mean").load(1, 4)
    assert fleets.bytes_of(held.exact()) == fleets.bytes_of(alone[-1])
    assert fleets.bytes_of(result) == fleets.bytes_of(measured[-1]) == fleets.bytes_of(held.result())
    for name in result:
        one, two, three, four = (arrays[name] for arrays in alone)
        wanted = (one + two + three) / 3 * 2 / 3 + four / 3
        np.testing.assert_allclose(result[name], wanted, rtol=1e-4, atol=1e-6)
        assert not np.allclose(result[name], four, rtol=1e-4, atol=1e-6)


def _told(rounds: int, average: int) -> RoundSettings:
    return fleets.settings(rounds=rounds, average=average, **SMALL)


def test_devices_hold_what_the_server_thinks_they_hold(tmp_path: Path) -> None:
    grid = fleets.grid()
    rounds = fleets.strategy(tmp_path, fleets.settings(rounds=3, evaluate_every=1, **SMALL))
    fleets.run(rounds, grid)
    wanted = fleets.bytes_of(Versions(tmp_path).load(1, 3).arrays)
    for node in grid.nodes.values():
        assert fleets.bytes_of({n: a.numpy() for n, a in node.context.state["held"].items()}) == wanted


@pytest.mark.parametrize("aggregator", ["mean", "krum", "flag"])
def test_the_order_of_replies_changes_no_byte(tmp_path: Path, aggregator: str) -> None:
    found = set()
    for paces in ((1, 1, 1, 1, 1), (5, 4, 3, 2, 1), (2, 9, 1, 4, 3)):
        grid = fleets.grid(dict.fromkeys(fleets.FIVE, 1.0))
        for node, pace in zip(grid.nodes.values(), paces, strict=True):
            node.pace = pace
        told = fleets.settings(aggregator=aggregator, **SMALL)
        found.add(fleets.bytes_of(fleets.run(fleets.strategy(tmp_path / str(paces), told), grid)))
    assert len(found) == 1


class _Killed(BaseException):
    """The process is gone."""


class _Reaper:
    """Ends the process at every step once, but for the very last: whoever starts rounds then means other ones."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, step: str) -> None:
        if step not in self.seen and step != "after ending":
            self.seen.append(step)
            raise _Killed(step)


class _Counting:
    """A companion whose state decides what comes out: it adds how often it was asked to end a round."""

    def __init__(self) -> None:
        self.count = 0

    def begin(self, arrays: Arrays) -> None:
        assert "head.w" in arrays
        assert not self.count

    def ask(self, number: int, round_: ConfigRecord) -> None:
        round_["gather"] = "gradients"
        assert number == self.count + 1

    def masks(self) -> None:
        return None

    def coded(self, number: int, held: Arrays) -> None:
        assert number == self.count + 1
        assert "head.w" in held

    def end(self, number: int, contributions: Sequence[Contribution], arrays: Arrays) -> Ending:
        del number
        self.count += 1
        gathered = [each.gathered["gradients"]["head.w"] for each in contributions]
        head = arrays["head.w"] + np.float32(0.001 * self.count) * np.mean(gathered, axis=0, dtype=np.float32)
        return Ending({**arrays, "head.w": head}, f"note {self.count}".encode())

    def dump(self) -> bytes:
        return self.count.to_bytes(2, "little")

    def load(self, state: bytes) -> None:
        self.count = int.from_bytes(state, "little")


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_killed_at_every_step_the_run_ends_with_the_same_bytes(tmp_path: Path, noise: float) -> None:
    told = fleets.settings(evaluate_every=1, noise=noise, clip=1.0, **SMALL)
    measured: dict[str, Any] = {"measure": lambda arrays: {"error": toy.error_of(arrays)}}
    quiet = fleets.strategy(tmp_path / "quiet", told, companion=_Counting(), **measured)
    secret = quiet.open(toy.ZERO).secret
    wanted = fleets.run(quiet, fleets.grid())

    reaper, grid, deaths = _Reaper(), fleets.grid(), 0
    while True:
        rounds = fleets.strategy(tmp_path / "killed", told, companion=_Counting(), at=reaper, **measured)
        try:
            run = rounds.open(toy.ZERO)
            if noise:  # each run has a secret of its own: to compare two, they are given the same
                rounds._run = type(run)(run.number, run.bundle, run.first, run.settings, secret)
            got = fleets.run(rounds, grid)
        except _Killed:
            rounds.journal.close()
            deaths += 1
        else:
            break
    assert deaths == len(reaper.seen) > 25
    assert fleets.bytes_of(got) == fleets.bytes_of(wanted)
    assert len({Versions(tmp_path / name).load(1, 2).version for name in ("quiet", "killed")}) == 1
    assert all(node.calls == 4 for node in grid.nodes.values()), "a device did something twice"


def _flips(reply: Message) -> Message:
    """Send the opposite, eight times as long: too short for the check of lengths to notice."""
    if "up" in reply.content.config_records:
        up = reply.content.config_records["up"]
        layout = toy.OUTLINE.block(1.0, "all")
        honest = decode(up["update"], layout)
        delta = {name: -8 * array for name, array in honest.arrays.items()}
        up["update"] = encode(delta, layout, Scheme("float32"), base=honest.base).data
    return reply


@pytest.mark.parametrize("aggregator", ["mean", "trimmed", "median", "krum", "flag"])
def test_a_third_of_liars_spoils_the_mean_and_nothing_else(tmp_path: Path, aggregator: str) -> None:
    grid = fleets.grid(dict.fromkeys("abcdef", 1.0), tamper={"b": _flips, "e": _flips})
    told = fleets.settings(rounds=4, aggregator=aggregator)
    arrays = fleets.run(fleets.strategy(tmp_path, told), grid)
    assert (toy.error_of(arrays) < toy.error_of(toy.ZERO)) is (aggregator != "mean")


def test_a_device_that_slept_is_told_all_that_it_missed(tmp_path: Path) -> None:
    grid = fleets.grid()
    grid.named("a").awake = False
    rounds = fleets.strategy(tmp_path, fleets.settings(rounds=3))
    fleets.run(rounds, grid)
    grid.named("a").awake = True
    grid.set_run(type(grid.run).create_empty(2))
    arrays = fleets.run(fleets.strategy(tmp_path, fleets.settings(rounds=1, share=1.0)), grid)
    assert toy.error_of(arrays) < toy.error_of(toy.ZERO)
    assert version_of({n: a.numpy() for n, a in grid.named("a").context.state["held"].items()}) == (
        Versions(tmp_path).load(2, 0).version
    )


def test_a_device_that_lost_its_state_is_told_the_whole_chain(tmp_path: Path) -> None:
    grid = fleets.grid()
    rounds = fleets.strategy(tmp_path, fleets.settings(rounds=2))
    fleets.run(rounds, grid)
    for key in list(grid.named("b").context.state):
        del grid.named("b").context.state[key]
    grid.set_run(type(grid.run).create_empty(2))
    fleets.run(fleets.strategy(tmp_path, fleets.settings(rounds=2)), grid)
    first, second = _states(tmp_path, 1, run=2), _states(tmp_path, 2, run=2)
    assert first == {"a": "believed", "b": "refused", "c": "believed", "d": "believed", "e": "believed"}
    assert set(second.values()) == {"believed"}


def test_after_the_deadline_a_round_takes_what_has_come(tmp_path: Path) -> None:
    grid = fleets.grid()
    grid.named("d").pace = 10**9
    rounds = fleets.strategy(tmp_path, fleets.settings(rounds=1, deadline_s=60), clock=fleets.Clock(tick=1.0))
    fleets.run(rounds, grid)
    assert _states(tmp_path, 1) == {"a": "believed", "b": "believed", "c": "believed", "d": "late", "e": "believed"}


def test_with_too_few_replies_a_round_changes_nothing(tmp_path: Path) -> None:
    grid = fleets.grid()
    for name in "abcd":
        grid.named(name).pace = 10**9
    told = fleets.settings(rounds=1, deadline_s=60)
    arrays = fleets.run(fleets.strategy(tmp_path, told, clock=fleets.Clock(tick=1.0)), grid)
    assert fleets.bytes_of(arrays) == fleets.bytes_of(toy.ZERO)


def test_oversampling_goes_on_with_the_first_that_answer(tmp_path: Path) -> None:
    grid = fleets.grid(dict.fromkeys("abcdefgh", 1.0))
    for place, node in enumerate(grid.nodes.values()):
        node.pace = 1 + place
    told = fleets.settings(rounds=1, share=0.5, over=1.5)
    fleets.run(fleets.strategy(tmp_path, told), grid)
    states = list(_states(tmp_path, 1).values())
    assert (len(states), states.count("believed"), states.count("late")) == (6, 4, 2)


def test_a_second_run_goes_on_and_one_anew_does_not(tmp_path: Path) -> None:
    grid = fleets.grid()
    first = fleets.run(fleets.strategy(tmp_path), grid)
    for run, anew in ((2, False), (3, True)):
        grid.set_run(type(grid.run).create_empty(run))
        again = fleets.strategy(tmp_path, anew=anew)
        again.open(toy.ZERO)
        start = Versions(tmp_path).load(run, 0).exact()
        assert fleets.bytes_of(start) == fleets.bytes_of(toy.ZERO if anew else first)
        fleets.run(again, grid)


def test_devices_hear_which_line_of_learning_they_are_on(tmp_path: Path) -> None:
    grid, lines = fleets.grid(), []
    for run, anew in ((1, False), (2, False), (3, True)):
        grid.set_run(type(grid.run).create_empty(run))
        rounds = fleets.strategy(tmp_path, anew=anew)
        fleets.run(rounds, grid)
        with closing(Journal(tmp_path, fleets.Clock())) as journal:
            asked = [journal.round(run, number) for number in (1, 2)]
        (line,) = {each.asked["record"]["line"] for each in asked if each is not None}
        lines.append(line)
    assert lines[0] == lines[1] != lines[2]


def test_an_unfinished_run_cannot_be_gone_on_with_otherwise(tmp_path: Path) -> None:
    rounds = fleets.strategy(tmp_path)
    rounds.open(toy.ZERO)
    rounds.journal.close()
    other = fleets.strategy(tmp_path, fleets.settings(rate=0.2, rounds=9))
    with pytest.raises(
        SettingsError, match=r"run 1 is not finished, and rate was 0\.1; give the same again, or --anew"
    ):
        other.open(toy.ZERO)
    other.journal.close()
    same = fleets.strategy(tmp_path, fleets.settings(rounds=9))
    assert same.open(toy.ZERO).number == 1
    same.journal.close()


def test_what_was_learnt_is_there_for_who_publishes(tmp_path: Path) -> None:
    with pytest.raises(LearningError, match="no rounds"):
        latest(tmp_path)
    rounds = fleets.strategy(tmp_path / FOLDER, bundle=b"b" * 32)
    arrays = fleets.run(rounds, fleets.grid())
    learnt = latest(tmp_path)
    assert (learnt.bundle_id, learnt.run, learnt.round, learnt.finished) == (b"b" * 32, 1, 2, True)
    assert fleets.bytes_of(learnt.arrays) == fleets.bytes_of(arrays)
