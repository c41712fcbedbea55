"""The server's part of sparse rounds: the schedule, what devices report, and what they are told."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ConfigRecord

from headwater.compression.errors import SettingsError
from headwater.compression.learning import masks as masking
from headwater.compression.learning.sparse import SparsePlan
from headwater.server.federation.averaging import Contribution
from headwater.server.federation.pruning.sparse import Sparse, SparseSettings, aggregated

SHAPES = {"a": (8, 4, 3, 3), "b": (6, 8)}
SETTINGS = SparseSettings(density=0.4, every=2, until=6)


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {n: rng.normal(size=s).astype(np.float32) for n, s in {**SHAPES, "bias": (8,)}.items()}


def begun(settings: SparseSettings, start: dict[str, np.ndarray]) -> Sparse:
    made = Sparse(settings, SHAPES)
    made.begin(start)
    return made


def device(masks: masking.Masks, seed: int, scale: float = 1.0) -> Contribution:
    """Reports what a real one would."""
    gathered = {}
    for name, gradient in arrays(seed).items():
        if name in masks:
            found = masking.top_gradients(np.float32(scale) * gradient, masks[name], 10)
            gathered |= {f"{name}:{part}": array for part, array in found.items()}
    return Contribution(seed, f"cam-{seed}", 10.0, {}, {}, gathered={"gathered": gathered})


def test_what_devices_are_asked_for_follows_the_schedule() -> None:
    plans = []
    for number in range(1, 9):
        record = ConfigRecord()
        begun(SETTINGS, arrays()).ask(number, record)
        plans.append(SparsePlan.from_json(str(record["sparse"])))
    assert [plan.grow for plan in plans] == [False, True] * 3 + [False, False]
    assert [plan.extrude > 0 for plan in plans] == [plan.grow for plan in plans]
    assert plans[0].due == plans[1].due == pytest.approx(masking.share_due(2 / 6))
    assert plans[6].due == 0


def test_masks_change_in_the_rounds_that_adjust_and_devices_are_told() -> None:
    server, held = begun(SETTINGS, arrays()), arrays()
    known: masking.Masks | None = None
    for number in range(1, 8):
        before = {name: mask.copy() for name, mask in server.masks().items()}
        ending = server.end(number, [device(before, 1), device(before, 2)], held)
        changed = any(not np.array_equal(before[name], mask) for name, mask in server.masks().items())
        assert changed == (number in {2, 4})  # at 6, the last, the share that is replaced has fallen to nothing
        assert bool(ending.note) == (number in {1, 2, 4, 6})
        if ending.note:
            known = masking.from_bytes(ending.note, known, held, SHAPES)
        assert known is not None
        assert all(np.array_equal(known[name], mask) for name, mask in server.masks().items())
        held = masking.apply(ending.arrays, server.masks())


def test_updates_code_all_masks_but_in_a_round_that_adjusts_nothing_of_what_goes() -> None:
    server, held = begun(SETTINGS, arrays()), arrays()
    masks = dict(server.masks())
    assert all(np.array_equal(server.coded(1, held)[name], mask) for name, mask in masks.items())
    coded = server.coded(2, held)
    for name, mask in masks.items():
        assert (coded[name] <= mask).all()
        assert mask.all() or coded[name].sum() < mask.sum()
    changed = {name: array + 0.1 for name, array in held.items()}  # as if all but what is due had learnt
    server.end(2, [device(masks, 1), device(masks, 2)], masking.apply(changed, coded))
    assert not any(server.masks()[name][mask & ~coded[name]].any() for name, mask in masks.items())


def test_a_first_round_that_adjusts_tells_both_in_one_note() -> None:
    server = begun(SparseSettings(density=0.4, every=1, until=4), arrays())
    ending = server.end(1, [device(server.masks(), 1)], arrays())
    known = masking.from_bytes(ending.note, None, arrays(), SHAPES)
    assert all(np.array_equal(known[name], mask) for name, mask in server.masks().items())


def test_no_device_outweighs_the_others_by_its_scale() -> None:
    masks = masking.first(arrays(), SHAPES, 0.4)
    small, large = device(masks, 1), device(masks, 1, scale=1e6)
    found = [aggregated([(1.0, each.gathered["gathered"])], masks) for each in (small, large)]
    np.testing.assert_allclose(found[0]["a"], found[1]["a"], rtol=1e-5)


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (np.array([0, 10_000], np.uint32), np.ones(2, np.float32)),
        (np.array([3, 3], np.uint32), np.ones(2, np.float32)),
        (np.array([3], np.uint32), np.array([np.nan], np.float32)),
        (np.array([3, 4], np.uint32), np.ones(3, np.float32)),
        (np.array([3], np.int64), np.ones(1, np.float32)),
        (np.empty(0, np.uint32), np.empty(0, np.float32)),
        ("text", None),
    ],
)
def test_a_report_that_does_not_fit_counts_as_none(at: object, value: object) -> None:
    masks = masking.first(arrays(), SHAPES, 0.4)
    found = aggregated([(1.0, {"a:at": at, "a:value": value})], masks)
    assert not found["a"].any()


def test_a_state_goes_on_where_it_was() -> None:
    one, two = begun(SETTINGS, arrays()), begun(SETTINGS, arrays(5))
    held = one.end(2, [device(one.masks(), 1)], arrays()).arrays
    two.load(one.dump())
    report = device(one.masks(), 2)
    ends = [each.end(4, [report], held) for each in (one, two)]
    assert ends[0].note == ends[1].note
    assert all(np.array_equal(ends[0].arrays[name], ends[1].arrays[name]) for name in held)


def test_a_state_of_another_companion_is_none() -> None:
    server = begun(SETTINGS, arrays())
    before = server.dump()
    server.load(b"fading\0{}")
    assert server.dump() == before


def test_a_schedule_that_is_none() -> None:
    with pytest.raises(SettingsError, match="every >= 1"):
        SparseSettings(every=0)
