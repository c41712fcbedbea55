"""What a reply has to be: each way of being wrong is refused by its own word, alone, and named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message

from headwater.compression.errors import UpdateError
from headwater.server.federation import checks
from headwater.server.federation.averaging import Contribution
from headwater.server.federation.checks import capped, length, too_long
from headwater.server.federation.survey import survey
from headwater.server.federation.versions import FOLDER
from tests.server.federation import fleets
from tests.server.federation.forgeries import WRONG, Forgery, round_with, round_without_b


@pytest.mark.parametrize(("word", "forgery"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_reply_is_refused_by_its_word_and_the_others_count(tmp_path: Path, word: str, forgery: Forgery) -> None:
    refused, others, model = round_with(tmp_path, forgery)
    assert (refused, others) == ({word: 1}, [1, 1, 1, 1])
    assert model == round_without_b(tmp_path / "honest")


def test_a_reply_that_was_taken_is_not_taken_again_whoever_sends_it(tmp_path: Path) -> None:
    kept: dict[str, ConfigRecord] = {}

    def replays(reply: Message) -> Message:
        up = kept.setdefault("up", ConfigRecord(dict(reply.content["up"])))
        nonce = up["nonce"]
        reply.content["up"]["nonce"] = nonce
        return reply

    grid = fleets.grid(tamper={"a": replays})
    fleets.run(fleets.strategy(tmp_path / FOLDER, fleets.settings(rounds=3)), grid)
    devices = {each.device: each for each in survey(tmp_path).devices}
    assert dict(devices["a"].refusals) == {"replayed": 2}
    assert devices["a"].states["believed"] == 1


def test_a_device_that_says_why_it_cannot_is_quoted(tmp_path: Path) -> None:
    grid = fleets.grid()
    grid.named("c").context.node_config["steps"] = "many"
    fleets.run(fleets.strategy(tmp_path / FOLDER, fleets.settings(rounds=1)), grid)
    device = next(each for each in survey(tmp_path).devices if each.device == "c")
    assert dict(device.refusals) == {"error": 1}
    assert "'many'" in device.last_refusal


def test_values_that_are_no_numbers_have_a_word_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(*_: object, **__: object) -> None:
        raise UpdateError("an update has values that are not finite")

    monkeypatch.setattr(checks, "decode", found)  # encode, rightly, makes no such bytes
    fleets.run(fleets.strategy(tmp_path / FOLDER, fleets.settings(rounds=1)), fleets.grid())
    assert all(dict(each.refusals) == {"non-finite": 1} for each in survey(tmp_path).devices)


def _contribution(node: int, value: float, examples: float = 10) -> Contribution:
    return Contribution(node, f"d{node}", examples, {"a": np.full(4, value, np.float32)}, {"a": ()})


def test_length_does_not_depend_on_how_much_was_trained() -> None:
    narrow = Contribution(2, "d", 1, {"a": np.full(2, 3.0, np.float32)}, {"a": (slice(0, 2),)})
    assert length(narrow) == length(_contribution(3, 3.0)) == pytest.approx(3.0)


def test_with_few_replies_length_is_held_against_the_round_before() -> None:
    two = [_contribution(2, 1.0), _contribution(3, 50.0)]
    assert too_long(two, 10, known=0.0) == {}
    assert list(too_long(two, 10, known=1.0)) == [1]
    assert list(too_long([*two, _contribution(4, 1.2)], 10, known=100.0)) == [1]


def test_a_device_that_claims_to_have_seen_everything_is_capped() -> None:
    claims = capped([_contribution(2, 1.0), _contribution(3, 1.0), _contribution(4, 1.0, examples=1e12)])
    assert [each.examples for each in claims] == [10, 10, 100]
