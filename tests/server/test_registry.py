from __future__ import annotations

import dataclasses

import pytest

from headwater.compression.bundle import Bundle
from headwater.compression.errors import BundleError, FrameError
from headwater.server.registry import LIVE_WARM, Registry
from headwater.server.tails import Tails
from tests import tiny


def built(name: str, seed: int, created: str = "2026-01-01T00:00:00+00:00") -> Bundle:
    """A tiny bundle of another date."""
    bundle = tiny.bundle(name, seed)
    files = {file: bundle.read(file) for file in bundle.manifest.files}
    return Bundle.build(dataclasses.replace(bundle.manifest, created=created), files)


def names(registry: Registry) -> list[bytes]:
    return [served.id for served in registry.served]


def test_a_bundle_is_found_by_its_id_its_short_id_and_its_name(tiny_bundle: Bundle) -> None:
    registry = Registry([tiny_bundle])
    served = registry.find(tiny_bundle.id)
    assert served is not None
    assert served.bundle is tiny_bundle
    assert registry.find(tiny_bundle.id[:5]) is served
    assert registry.by_name("tiny") is served
    assert registry.find(tiny_bundle.id[:6]) is None
    assert registry.find(b"") is None
    assert registry.by_name("other") is None
    assert registry.listing() == f"tiny {tiny_bundle.short_id}"
    assert Registry().listing() == "none"


def test_at_the_start_the_last_built_is_the_newest() -> None:
    new, old = built("a", 1, "2026-03-01T00:00:00+00:00"), built("a", 2, "2026-02-01T00:00:00+00:00")
    registry = Registry([new, old])
    assert names(registry) == [new.id, old.id]
    newest = registry.by_name("a")
    assert newest is not None
    assert newest.id == new.id


def test_the_one_before_stays_warm_and_the_one_before_that_goes() -> None:
    first, second, third, other = (built("a", seed) for seed in (1, 2, 3, 1))
    other = built("b", 1)
    registry = Registry([first, other])
    assert registry.add(second) == ()
    (retired,) = registry.add(third)
    assert retired.id == first.id
    assert registry.find(first.id) is None
    assert registry.find(first.id[:5]) is None
    assert names(registry) == [third.id, second.id, other.id]


def test_beside_frames_a_bundle_is_warmed_by_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    warmed: list[int] = []
    monkeypatch.setattr(Tails, "warm_up", lambda _, *batches: warmed.extend(batches))
    registry = Registry([built("a", 1)], warm=(1, 32))
    assert warmed == [1, 32]
    registry.add(built("a", 2))
    registry.revive(built("a", 3))
    assert warmed == [1, 32, *LIVE_WARM, *LIVE_WARM]
    assert max(LIVE_WARM) > 1, "a graph for one frame at a time is found out before frames come"


def test_going_back_to_the_one_before_makes_it_the_newest_without_loading_it_again() -> None:
    first, second = built("a", 1), built("a", 2)
    registry = Registry([first, second])
    before = registry.find(first.id)
    assert registry.add(first) == ()
    assert names(registry) == [first.id, second.id]
    assert registry.find(first.id) is before
    registry.add(first)
    assert names(registry) == [first.id, second.id]


def test_a_bundle_that_cannot_be_served_changes_nothing(tiny_bundle: Bundle) -> None:
    files = {file: tiny_bundle.read(file) for file in tiny_bundle.manifest.files}
    broken = Bundle.build(tiny_bundle.manifest, {**files, "decoder.onnx": b"no graph"})
    registry = Registry([tiny_bundle])
    with pytest.raises(BundleError):
        registry.add(broken)
    assert names(registry) == [tiny_bundle.id]


def test_tasks_are_bits_in_the_manifests_order(tiny_bundle: Bundle) -> None:
    (served,) = Registry([tiny_bundle]).served
    assert [served.mask(tasks) for tasks in ((), ("shape",), ("bright",), ("bright", "shape"))] == [0, 1, 2, 3]
    with pytest.raises(KeyError, match="colour"):
        served.mask(["colour"])


def test_a_later_bundle_answers_for_the_one_before_and_takes_its_place(tiny_bundle: Bundle) -> None:
    later = tiny.later()
    registry = Registry([later, tiny_bundle])
    assert names(registry) == [later.id], "the bundle that another answers for is still in memory"
    own, earlier = registry.find(later.id), registry.find(tiny_bundle.id)
    assert own is not None
    assert earlier is not None
    assert (earlier.tails, earlier.coder, earlier.tasks) == (own.tails, own.coder, own.tasks)
    assert registry.find(tiny_bundle.id[:5]) is earlier
    data = tiny_bundle.frames().pack(tiny.frame(tiny_bundle, 3, 7))
    assert earlier.frames.unpack(data).mode == 7
    with pytest.raises(FrameError):
        own.frames.unpack(data)
    assert registry.listing() == f"tiny {later.short_id} (also for {tiny_bundle.short_id})"
    assert registry.add(tiny_bundle) == ()
    assert names(registry) == [later.id]


def test_adding_a_later_bundle_retires_the_one_it_answers_for_and_keeps_the_one_before(tiny_bundle: Bundle) -> None:
    other = built("tiny", 5)
    registry = Registry([other, tiny_bundle])
    (retired,) = registry.add(tiny.later())
    assert retired.id == tiny_bundle.id
    assert names(registry) == [tiny.later().id, other.id]


def test_of_two_that_answer_for_a_bundle_the_newer_does() -> None:
    first = tiny.later()
    files = {file: first.read(file) for file in first.manifest.files}
    manifest = dataclasses.replace(first.manifest, created="2026-03-01T00:00:00+00:00", tasks=tiny.TASKS)
    second = Bundle.build(manifest, files)
    for bundles in ([first, second], [second, first]):
        found = Registry(bundles).find(tiny.bundle().id)
        assert found is not None
        assert found.answered_by == second.id


def test_a_bundle_that_claims_to_answer_for_one_with_another_head_is_refused(tiny_bundle: Bundle) -> None:
    other = tiny.bundle(seed=1)
    files = {file: other.read(file) for file in other.manifest.files}
    claims = Bundle.build(dataclasses.replace(other.manifest, answers_for=(tiny_bundle.id.hex(),)), files)
    registry = Registry([tiny_bundle])
    with pytest.raises(BundleError, match=r"differs from it in decoder.onnx, head_0.25.onnx, .*tables.safetensors"):
        registry.add(claims)
    assert names(registry) == [tiny_bundle.id]
