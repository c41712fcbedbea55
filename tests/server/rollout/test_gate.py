"""Which bundle may be published, by its figures."""

import dataclasses

import pytest

from headwater.compression.errors import RolloutError
from headwater.compression.image import InputSpec
from headwater.compression.manifest import Manifest, Mode, Task
from headwater.server.rollout.gate import Bounds, check
from tests.versions import version

OLD = version(0).manifest


def changed(**given: object) -> Manifest:
    """A later manifest with the old one's figures."""
    return dataclasses.replace(OLD, created="2026-05-01T00:00:00+00:00", **given)  # type: ignore[arg-type]


def mode(index: int, **given: object) -> tuple[Mode, ...]:
    return tuple(dataclasses.replace(one, **given) if one.index == index else one for one in OLD.modes)  # type: ignore[arg-type]


def test_one_as_good() -> None:
    passed = check(changed(), OLD, Bounds(0.0, 0.0))
    assert (passed.worst, passed.mean, passed.growth) == (0.0, 0.0, 0.0)


def test_a_task_in_a_mode_may_lose_so_much() -> None:
    worse = changed(modes=mode(7, accuracy={**OLD.modes[7].accuracy, "bright": OLD.modes[7].accuracy["bright"] - 0.02}))
    assert check(worse, OLD, Bounds(2.0)).worst == pytest.approx(2.0)
    with pytest.raises(RolloutError, match=r"bright loses 2\.00 points in width 0\.5, gain 3 \(1 such\)"):
        check(worse, OLD, Bounds(1.9))


def test_frames_may_grow_so_much() -> None:
    longer = changed(modes=mode(3, mean_bytes=OLD.modes[3].mean_bytes * 1.2))
    assert check(longer, OLD, Bounds(1.0, 21.0)).growth == pytest.approx(20 / 16)
    with pytest.raises(RolloutError, match=r"a frame grows by 20\.0 % in width 0\.25, gain 3"):
        check(longer, OLD, Bounds(1.0, 19.0))


def test_pictures_are_compared_too() -> None:
    old = dataclasses.replace(
        OLD,
        tasks=(*OLD.tasks, Task("picture", (), "image")),
        modes=tuple(dataclasses.replace(one, psnr_db={"picture": 30.0}) for one in OLD.modes),
        files={**OLD.files},
    )
    worse = tuple(dataclasses.replace(one, psnr_db={"picture": 28.0}) for one in OLD.modes)
    new = dataclasses.replace(old, created="2026-05-01T00:00:00+00:00", modes=worse)
    with pytest.raises(RolloutError, match=r"picture loses 2\.00 points"):
        check(new, old, Bounds())


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"name": "other"}, "devices take only their own"),
        ({"input": InputSpec("L", 64, 64)}, "reads"),
        ({"created": "2025-01-01T00:00:00+00:00"}, "not after the one in use"),
        ({"tasks": OLD.tasks[:1]}, "lacks the task bright"),
        ({"data": {"split": "1234"}}, "different images"),
        ({"modes": OLD.modes[:-1]}, "lacks width 1, gain 3"),
        ({"modes": tuple(dataclasses.replace(one, accuracy={}) for one in OLD.modes)}, "was not measured"),
    ],
)
def test_what_cannot_be_compared_is_not_published(given: dict[str, object], text: str) -> None:
    with pytest.raises(RolloutError, match=text):
        check(dataclasses.replace(changed(), **given), OLD, Bounds(100.0, 1000.0))  # type: ignore[arg-type]
