"""The ClientApp with real messages, contexts and updates, called as the worker calls it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from headwater.compression.learning import masks as masking
from headwater.compression.learning.arrays import arrays_of, version_of
from headwater.compression.learning.layout import cut_masks, layout_of
from headwater.compression.learning.reading import network_of
from headwater.compression.learning.sparse import SparsePlan, maskable
from headwater.compression.updates import Layout, Scheme, decode, encode
from headwater.device.federated.app import app
from headwater.protos.flower import acting_as, call, context_from_bytes, context_to_bytes
from tests import learnable

RUN, NODE = 7, 99
TERNARY = Scheme("ternary", 0.05).to_json()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return learnable.bundle().save(tmp_path_factory.mktemp("bundle") / "digits")


@pytest.fixture(scope="module")
def start() -> dict[str, np.ndarray]:
    return arrays_of(network_of(learnable.bundle()))


def context(bundle: Path, **config: object) -> Context:
    node = {"bundle": str(bundle), "data": "digits", "num-partitions": 20, "partition-id": 3, "partition-alpha": 1000.0}
    return Context(RUN, NODE, {**node, **config}, RecordDict(), {})


def asked(base: str, **changes: object) -> dict[str, Any]:
    return {
        "round": 1, "width": 1.0, "part": "all", "epochs": 0.5, "batch": 8, "rate": 3e-3, "seed": 5, "base": base,
        "scheme": Scheme().to_json(), "distil": 1.0, "logit-adjustment": 1.0,
        "optimizer": "scaled", "sparse": "", "gather": "", "line": "", **changes,
    }  # fmt: skip


def say(
    context: Context, kind: str, round_: Mapping[str, Any], steps: list[tuple[str, bytes, bytes]] | None = None
) -> Message:
    versions, updates, notes = ([step[i] for step in steps or []] for i in range(3))
    down = ConfigRecord({"versions": versions, "updates": updates, "notes": notes})
    with acting_as(RUN):
        message = Message(RecordDict({"round": ConfigRecord(dict(round_)), "down": down}), NODE, kind, group_id="1")
    return call(app, message, context)


def up(reply: Message) -> ConfigRecord:
    assert not reply.has_error(), reply.error.reason
    return reply.content.config_records["up"]


def layout(part: str = "all") -> Layout:
    return layout_of(learnable.network(), "all" if part == "all" else "head")


def step_from(arrays: Mapping[str, np.ndarray], seed: int) -> tuple[dict[str, np.ndarray], tuple[str, bytes, bytes]]:
    """A version that is a little off another, and the step to it."""
    rng = np.random.default_rng(seed)
    delta = {name: rng.normal(0, 1e-3, array.shape).astype(np.float32) for name, array in arrays.items()}
    coded = encode(delta, layout(), Scheme("int8"), base=bytes.fromhex(version_of(arrays)))
    new = {name: array + coded.decoded[name] for name, array in arrays.items()}
    return new, (version_of(new), coded.data, b"")


def test_an_update_is_of_what_was_trained_and_starts_from_the_base(bundle: Path, start: dict[str, np.ndarray]) -> None:
    reply = say(context(bundle), "train", asked(version_of(start)))
    said, metrics = up(reply), reply.content.metric_records["metrics"]
    update = decode(bytes(said["update"]), layout())  # type: ignore[arg-type]  # a record's value is of many types
    assert update.base.hex() == said["base"] == version_of(start)
    assert (said["width"], said["part"]) == (1.0, "all")
    assert all(np.abs(delta).max() > 0 for delta in update.arrays.values())
    assert metrics["num-examples"] == 36, "half of those that are here"
    assert metrics["steps"] == 5
    assert {"loss", "seconds", "peak-bytes"} <= metrics.keys()


def test_the_same_message_in_the_same_state_gives_the_same_update_and_another_another_nonce(
    bundle: Path, start: dict[str, np.ndarray]
) -> None:
    state = context_to_bytes(context(bundle))
    version = version_of(start)
    with acting_as(RUN):
        down = ConfigRecord({"versions": [], "updates": [], "notes": []})
        content = RecordDict({"round": ConfigRecord(asked(version, epochs=0.1)), "down": down})
        messages = [Message(content, NODE, "train", group_id="1") for _ in range(2)]
    order = (messages[0], messages[0], messages[1])
    known = [up(call(app, message, context_from_bytes(state))) for message in order]
    assert known[0]["update"] == known[1]["update"]
    assert known[0]["nonce"] == known[1]["nonce"] != known[2]["nonce"]


def test_what_an_update_leaves_out_goes_with_the_next(bundle: Path, start: dict[str, np.ndarray]) -> None:
    here, version = context(bundle), version_of(start)
    exact = decode(bytes(up(say(context(bundle), "train", asked(version)))["update"]), layout()).arrays  # type: ignore[arg-type]
    sent = decode(bytes(up(say(here, "train", asked(version, scheme=TERNARY)))["update"]), layout()).arrays  # type: ignore[arg-type]
    owed = {name: array.numpy() for name, array in here.state.array_records["owed"].items()}
    for name, array in exact.items():
        rest = owed.get(name, np.zeros(1))
        np.testing.assert_allclose(sent[name] + rest.astype(np.float32), array, atol=3e-5, rtol=2e-3)
    again = say(context_from_bytes(context_to_bytes(here)), "train", asked(version, rate=0.0))
    paid = decode(bytes(up(again)["update"]), layout()).arrays  # type: ignore[arg-type]
    worst = max(owed, key=lambda name: float(np.abs(owed[name]).max()))
    np.testing.assert_allclose(paid[worst], owed[worst].astype(np.float32))


def test_what_is_owed_to_rounds_that_were_begun_anew_is_forgotten(bundle: Path, start: dict[str, np.ndarray]) -> None:
    here, version = context(bundle), version_of(start)
    first = asked(version, scheme=TERNARY, line="one")
    up(say(here, "train", first))
    owing = context_to_bytes(here)
    fresh = up(say(context(bundle), "train", asked(version, rate=1e-3, line="two")))["update"]
    assert up(say(here, "train", asked(version, rate=1e-3, line="two")))["update"] == fresh
    assert "owed" not in here.state
    goes_on = up(say(context_from_bytes(owing), "train", asked(version, rate=1e-3, line="one")))["update"]
    assert goes_on != fresh


def test_steps_lead_to_the_base_from_what_is_held_or_from_the_bundle(
    bundle: Path, start: dict[str, np.ndarray]
) -> None:
    first, one = step_from(start, 1)
    second, two = step_from(first, 2)
    here = context(bundle)
    said = up(say(here, "train", asked(version_of(first), epochs=0.1), [one]))
    assert said["base"] == version_of(first)
    here = context_from_bytes(context_to_bytes(here))
    assert up(say(here, "train", asked(version_of(second), epochs=0.1), [two]))["base"] == version_of(second)
    held = {name: array.numpy() for name, array in here.state.array_records["arrays"].items()}
    assert version_of(held) == version_of(second)
    # A server that did not hear of it begins with a step that was taken already.
    third, more = step_from(second, 4)
    assert up(say(here, "train", asked(version_of(third), epochs=0.1), [two, more]))["base"] == version_of(third)
    # All steps from the beginning are as good, whatever is held.
    other, three = step_from(start, 3)
    assert up(say(here, "train", asked(version_of(other), epochs=0.1), [three]))["base"] == version_of(other)


@pytest.mark.parametrize("wrong", ["none", "elsewhere", "lies", "damaged"])
def test_steps_that_lead_elsewhere_are_an_unknown_version(
    bundle: Path, start: dict[str, np.ndarray], wrong: str
) -> None:
    first, one = step_from(start, 1)
    second, two = step_from(first, 2)
    steps = {
        "none": [],
        "elsewhere": [two],
        "lies": [(version_of(second), one[1], b"")],
        "damaged": [(one[0], one[1][:-3], b"")],
    }[wrong]
    here = context(bundle)
    reply = say(here, "train", asked(version_of(second)), steps)
    assert reply.has_error()
    assert "unknown version" in reply.error.reason
    assert not here.state, "what failed leaves no trace"


def test_another_bundle_begins_anew(bundle: Path, start: dict[str, np.ndarray], tmp_path: Path) -> None:
    first, one = step_from(start, 1)
    here = context(bundle)
    up(say(here, "train", asked(version_of(first), epochs=0.1, scheme=TERNARY), [one]))
    here.node_config["bundle"] = str(learnable.bundle().with_file("MODEL_CARD.md", b"new").save(tmp_path / "new"))
    up(say(here, "train", asked(version_of(start), epochs=0.1)))
    assert "arrays" not in here.state
    assert "owed" not in here.state
    assert here.state.config_records["held"]["rounds"] == 2, "what the device did in its life stays"


def test_a_device_trains_what_its_memory_takes(bundle: Path, start: dict[str, np.ndarray]) -> None:
    from headwater.compression.learning.fitting import needs
    from headwater.compression.learning.plan import Plan

    network, plan = learnable.network(), Plan(width=0.5, part="head", at_once=1, batch=8)
    least = needs(network, learnable.SPEC, plan).peak
    said = up(say(context(bundle, **{"memory-bytes": least}), "train", asked(version_of(start))))
    assert (said["width"], said["part"]) == (0.5, "head")
    update = decode(bytes(said["update"]), layout("head").at(0.5))  # type: ignore[arg-type]
    assert not any(name.startswith(("tails.", "decoder.")) for name in update.arrays)
    reply = say(context(bundle, **{"memory-bytes": least // 2}), "train", asked(version_of(start)))
    assert "--train-memory-mb" in reply.error.reason


def test_a_device_steps_as_it_is_asked_to(bundle: Path, start: dict[str, np.ndarray]) -> None:
    rounds = [asked(version_of(start), epochs=0.1, optimizer=name) for name in ("scaled", "adam")]
    updates = [bytes(up(say(context(bundle), "train", round_))["update"]) for round_ in rounds]  # type: ignore[arg-type]
    assert updates[0] != updates[1]
    unknown = asked(version_of(start), optimizer="adagrad")
    assert "'adagrad'; want one of" in say(context(bundle), "train", unknown).error.reason


def test_a_sparse_round_codes_nothing_outside_its_masks_nor_of_what_is_due(
    bundle: Path, start: dict[str, np.ndarray]
) -> None:
    plan = SparsePlan(density=0.5, extrude=0.5, due=0.1, grow=True)
    masks, here = masking.first(start, maskable(learnable.network()), 0.5), context(bundle)
    reply = say(here, "train", asked(version_of(start), sparse=plan.to_json()))
    coded = plan.coded(start, masks)
    assert 0 < sum(mask.sum() for mask in coded.values()) < sum(mask.sum() for mask in masks.values())
    update = decode(bytes(up(reply)["update"]), layout(), mask=cut_masks(layout(), coded, 1.0))  # type: ignore[arg-type]
    assert all(not update.arrays[name][~mask].any() for name, mask in coded.items())
    assert reply.content.array_records["gathered"]
    assert "owed" not in here.state, "what the round leaves nothing of is not owed later"


def test_a_dense_round_after_sparse_ones_trains_all_and_then_the_masks_are_gone(
    bundle: Path, start: dict[str, np.ndarray]
) -> None:
    masks = masking.first(start, maskable(learnable.network()), 0.5)
    note = masking.to_bytes(masks, masks, 0.5)
    thin = masking.apply(start, masks)
    delta = {name: thin[name] - start[name] for name in start}
    coded = encode(delta, layout(), Scheme("float32"), base=bytes.fromhex(version_of(start)), mask=masks)
    sparse = (version_of(thin), coded.data, note)
    here = context(bundle)
    update = up(say(here, "train", asked(version_of(thin)), [sparse]))["update"]
    trained = decode(bytes(update), layout()).arrays  # type: ignore[arg-type]
    assert any(trained[name][~mask].any() for name, mask in masks.items())
    assert "masks" in here.state, "they are this version's until the next one says otherwise"
    full, (version, data, _) = step_from(thin, 3)
    up(say(here, "train", asked(version), [(version, data, masking.ENDED)]))
    assert "masks" not in here.state
    assert version == version_of(full)


def test_it_measures_and_says_what_it_is(bundle: Path, start: dict[str, np.ndarray]) -> None:
    here = context(bundle)
    metrics = say(here, "evaluate", asked(version_of(start))).content.metric_records["metrics"]
    assert 0.4 < float(metrics["accuracy"]) <= 1  # type: ignore[arg-type]
    assert metrics["num-examples"] == 20
    assert {"loss", "accuracy-coarse"} <= metrics.keys()
    with acting_as(RUN):
        message = Message(RecordDict(), NODE, "query", group_id="1")
    device = call(app, message, here).content.config_records["device"]
    assert (device["version"], device["widest"], device["part"]) == (version_of(start), 1.0, "all")
    assert device["examples"] == 71


def test_a_message_that_lacks_something_says_what(bundle: Path, start: dict[str, np.ndarray]) -> None:
    with acting_as(RUN):
        message = Message(RecordDict(), NODE, "train", group_id="1")
    assert "no record 'round'" in call(app, message, context(bundle)).error.reason
    wrong = asked(version_of(start), batch="many")
    assert "batch is 'many'; want int" in say(context(bundle), "train", wrong).error.reason
    nothing = Context(RUN, NODE, {}, RecordDict(), {})
    assert 'bundle="PATH"' in say(nothing, "train", asked(version_of(start))).error.reason
