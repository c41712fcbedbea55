"""What a reply has to be: each way of being wrong is refused by its own word, alone, and named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, MetricRecord

from headwater.compression.errors import UpdateError
from headwater.compression.updates import Scheme, encode
from headwater.server.federation import checks
from headwater.server.federation.averaging import Contribution
from headwater.server.federation.checks import capped, length, too_long
from headwater.server.federation.survey import survey
from headwater.server.federation.versions import FOLDER
from tests.server.federation import fleets, toy

Forgery = Callable[[Message], Message]


def _up(**changes: object) -> Forgery:
    def forged(reply: Message) -> Message:
        if "up" in reply.content:
            for name, value in changes.items():
                reply.content["up"][name] = value  # type: ignore[assignment]
        return reply

    return forged


def _without(name: str) -> Forgery:
    def forged(reply: Message) -> Message:
        del reply.content[name]
        return reply

    return forged


def _update(change: Callable[[bytes], bytes]) -> Forgery:
    def forged(reply: Message) -> Message:
        reply.content["up"]["update"] = change(bytes(reply.content["up"]["update"]))  # type: ignore[arg-type]
        return reply

    return forged


def _metrics(**changes: float) -> Forgery:
    def forged(reply: Message) -> Message:
        reply.content["metrics"] = MetricRecord({"num-examples": 40, "loss": 1.0, **changes})
        return reply

    return forged


def _coded(width: float, value: float, base: str = "") -> Forgery:
    """An update of this width whose values are all the same."""

    def forged(reply: Message) -> Message:
        layout = toy.OUTLINE.block(width, "all")
        delta = {name: np.full(shape, value, np.float32) for name, shape in layout.shapes.items()}
        sent = str(reply.content["up"]["base"])
        data = encode(delta, layout, Scheme("float32"), base=bytes.fromhex(base or sent)).data
        reply.content["up"]["update"] = data
        return reply

    return forged


WRONG: dict[str, tuple[str, Forgery]] = {
    "no record": ("malformed", _without("up")),
    "no metrics": ("malformed", _without("metrics")),
    "no update": ("malformed", _up(update="text")),
    "no bytes": ("malformed", _up(update=b"")),
    "cut bytes": ("malformed", _update(lambda data: data[: len(data) // 2])),
    "a flipped bit": ("malformed", _update(lambda data: data[:-1] + bytes([data[-1] ^ 1]))),
    "random bytes": ("malformed", _update(lambda data: np.random.default_rng(0).bytes(len(data)))),
    "no nonce": ("malformed", _up(nonce="")),
    "a huge nonce": ("malformed", _up(nonce="x" * 5000)),
    "an unknown width": ("width", _up(width=0.7)),
    "not a number for a width": ("width", _up(width=float("nan"))),
    "an unknown part": ("width", _up(part="feet")),
    "the shapes of another width": ("malformed", _coded(0.5, 1.0)),
    "an old version": ("stale", _up(base="00" * 16)),
    "bytes of an old version": ("stale", _coded(1.0, 1.0, base="00" * 16)),
    "no examples": ("examples", _metrics(**{"num-examples": 0})),
    "endless examples": ("examples", _metrics(**{"num-examples": float("inf")})),
    "fewer than no examples": ("examples", _metrics(**{"num-examples": -5})),
    "an absurd norm": ("norm", _coded(1.0, 1e6)),
}


@pytest.mark.parametrize(("word", "forgery"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_reply_is_refused_by_its_word_and_the_others_count(tmp_path: Path, word: str, forgery: Forgery) -> None:
    grid = fleets.grid(tamper={"b": forgery})
    arrays = fleets.run(fleets.strategy(tmp_path / FOLDER, fleets.settings(rounds=1)), grid)
    devices = {each.device: each for each in survey(tmp_path).devices}
    assert dict(devices["b"].refusals) == {word: 1}, devices["b"].last_refusal
    assert [devices[name].states["believed"] for name in "acde"] == [1, 1, 1, 1]
    honest = fleets.grid({name: width for name, width in fleets.FIVE.items() if name != "b"})
    wanted = fleets.run(fleets.strategy(tmp_path / "honest", fleets.settings(rounds=1)), honest)
    assert fleets.bytes_of(arrays) == fleets.bytes_of(wanted)


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
