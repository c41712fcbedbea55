"""Buffered rounds: nobody is waited for, the slow are not drowned, and a kill loses no reply."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from headwater.compression.errors import SettingsError
from headwater.server.federation.asynchronous import LIMIT, balanced
from headwater.server.federation.averaging import Contribution
from headwater.server.federation.closing import Judged
from headwater.server.federation.companion import Dense
from headwater.server.federation.entries import Task
from headwater.server.federation.survey import survey
from headwater.server.federation.versions import FOLDER
from tests.server.federation import fleets, toy


def _told(**changes: Any) -> Any:  # noqa: ANN401 - of any field
    return fleets.settings(**{"asynchronous": True, "buffer": 2, "rounds": 6, "least": 1, **changes})


def _grid(**paces: int) -> Any:  # noqa: ANN401 - a grid
    grid = fleets.grid(dict.fromkeys(paces, 1.0))
    for name, pace in paces.items():
        grid.named(name).pace = pace
    return grid


def test_versions_are_made_while_a_slow_device_still_trains(tmp_path: Path) -> None:
    grid = _grid(a=1, b=2, c=40)
    fleets.run(fleets.strategy(tmp_path / FOLDER, _told()), grid)
    found = survey(tmp_path)
    assert [each.phase for each in found.rounds] == ["closed"] * 6
    states = {each.device: each.states for each in found.devices}
    assert states["c"]["sent"] == 1
    assert states["a"]["believed"] + states["b"]["believed"] == 12


def test_it_learns(tmp_path: Path) -> None:
    arrays = fleets.run(fleets.strategy(tmp_path, _told(rounds=10)), _grid(a=1, b=2, c=3, d=5))
    assert toy.error_of(arrays) < 0.3 * toy.error_of(toy.ZERO)


def test_a_late_reply_counts_by_how_far_it_is_behind(tmp_path: Path) -> None:
    fleets.run(fleets.strategy(tmp_path / FOLDER, _told(rounds=7)), _grid(a=1, b=1, c=4))
    rounds = fleets.strategy(tmp_path / FOLDER)
    ((scale,),) = rounds.journal._rows(
        "SELECT json_extract(facts, '$.scale') FROM tasks WHERE device = 'c' AND state = 'believed'"
    )
    rounds.journal.close()
    assert scale == pytest.approx(1 / math.sqrt(1 + 3))  # asked in round 1, answered in round 4


def test_too_stale_a_reply_is_refused_by_its_word(tmp_path: Path) -> None:
    fleets.run(fleets.strategy(tmp_path / FOLDER, _told(rounds=7, most_stale=2)), _grid(a=1, b=1, c=4))
    device = next(each for each in survey(tmp_path).devices if each.device == "c")
    assert set(device.refusals) == {"stale"}
    assert "2 is the bound" in device.last_refusal


def test_a_device_that_never_answers_is_given_up(tmp_path: Path) -> None:
    grid = _grid(a=1, b=1, c=10**9)
    told = _told(rounds=8, lifetime_s=20.0)
    fleets.run(fleets.strategy(tmp_path / FOLDER, told, clock=fleets.Clock(tick=1.0)), grid)
    states = {each.device: each.states for each in survey(tmp_path).devices}
    assert states["c"]["lost"] >= 1
    assert set(states["a"]) == {"believed"}


def test_no_more_devices_train_at_a_time_than_may(tmp_path: Path) -> None:
    grid = _grid(a=2, b=2, c=2, d=2)
    seen = []
    push = grid.push_messages

    def counted(messages: list[Message]) -> list[str]:
        seen.append(len(list(messages)))
        return push(messages)

    grid.push_messages = counted  # type: ignore[method-assign]
    fleets.run(fleets.strategy(tmp_path / FOLDER, _told(at_once=2, rounds=4), clock=fleets.Clock(tick=1.0)), grid)
    assert max(seen) == 2
    believed = [each.states["believed"] for each in survey(tmp_path).devices]
    assert sum(believed) == 8
    assert max(believed) - min(believed) <= 1, "those that have waited longest come first"


class _Killed(BaseException):
    """The process is gone."""


def test_killed_at_every_step_no_reply_is_lost_or_counted_twice(tmp_path: Path) -> None:
    seen: set[str] = set()

    def reaper(step: str) -> None:
        if step not in seen and step != "after ending":
            seen.add(step)
            raise _Killed(step)

    grid = _grid(a=1, b=2, c=3)
    while True:
        rounds = fleets.strategy(tmp_path / FOLDER, _told(rounds=4), at=reaper)
        try:
            fleets.run(rounds, grid)
        except _Killed:
            continue
        break
    found = survey(tmp_path)
    believed = sum(each.states["believed"] for each in found.devices)
    assert believed == sum(each.facts["devices"] for each in found.rounds) >= 8
    asked = sum(sum(each.states.values()) for each in found.devices)
    assert sum(node.calls for node in grid.nodes.values()) <= asked, "a device did something twice"


def _judged(node: int, steps: float, examples: float = 10) -> Judged:
    task = Task(1, "train", node, f"d{node}", "", "answered", 0.0)
    delta = {"a": np.ones(2, np.float32)}
    contribution = Contribution(node, task.device, examples, delta, {"a": ()}, metrics={"steps": steps})
    return Judged(task, contribution)


def _weights(judged: list[Judged]) -> list[float]:
    return [each.contribution.examples for each in judged if each.contribution is not None]


def test_who_contributed_much_counts_for_less_and_the_other_way_round() -> None:
    weights = _weights(balanced([_judged(2, 10), _judged(3, 10)], {2: 90.0, 3: 0.0, 4: 90.0}))
    mean = (100 + 10 + 90) / 3
    assert weights == [pytest.approx(10 * mean / 100), pytest.approx(10 * min(LIMIT, mean / 10))]


def test_over_time_each_device_brings_the_same_however_quick_it_is() -> None:
    work: dict[int, float] = {}
    brought = {2: 0.0, 3: 0.0}
    for turn in range(400):
        node = 2 if turn % 3 else 3  # one answers twice as often, and trains half as long
        judged = balanced([_judged(node, 10 if node == 2 else 15)], work)
        work[node] = work.get(node, 0.0) + (10 if node == 2 else 15)
        brought[node] += _weights(judged)[0] * (10 if node == 2 else 15)
    assert brought[2] == pytest.approx(brought[3], rel=0.1)


def test_masks_and_privacy_need_synchronous_rounds(tmp_path: Path) -> None:
    class Masked(Dense):
        def masks(self) -> dict[str, Any]:
            return {}

    with pytest.raises(SettingsError, match="leave out --async"):
        fleets.run(fleets.strategy(tmp_path, _told(), companion=Masked()), _grid(a=1, b=1))
    with pytest.raises(SettingsError, match="leave out --async"):
        _told(noise=1.0)
