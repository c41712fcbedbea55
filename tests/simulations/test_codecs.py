"""Image codecs as peers: what is counted, and that nothing is picked by luck."""

import io
import math

import numpy as np
import pytest
from PIL import Image, features

from headwater.compression.bundle import Bundle
from headwater.compression.errors import BundleError
from headwater.simulations.codecs import (
    QUALITIES,
    SCALES,
    Scored,
    Setting,
    cheapest,
    encode,
    grid,
    paired_standard_error,
    score,
    standard_error,
)
from tests import tiny


def picture(seed: int) -> Image.Image:
    return Image.fromarray(tiny.image(seed)[0])


def scored(codec: str, size: int, right: int, count: int = 100) -> Scored:
    sizes = np.full(count, size)
    return Scored(Setting(codec, 8, 8, 50), sizes, sizes, np.arange(count) < right)  # type: ignore[arg-type]


def test_the_grid_has_every_size_and_quality_of_both_codecs(tiny_bundle: Bundle) -> None:
    settings = grid(tiny_bundle.manifest.input)
    assert len(set(settings)) == 2 * len(SCALES) * len(QUALITIES)
    assert {(one.width, one.height) for one in settings} == {(32, 32), (24, 24), (16, 16), (8, 8)}


needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")


@pytest.mark.parametrize("codec", ["JPEG", "WebP", pytest.param("AVIF", marks=needs_avif)])
def test_a_file_decodes_and_what_never_changes_is_not_counted(codec: str) -> None:
    setting = Setting(codec, 32, 32, 75)  # type: ignore[arg-type]
    data, counted = encode(picture(1), setting)
    with Image.open(io.BytesIO(data)) as decoded:
        assert decoded.format == codec.upper()
        difference = np.asarray(decoded.convert("L"), int) - np.asarray(picture(1), int)
    assert np.abs(difference).mean() < 8
    assert 20 < counted < len(data)


def test_better_quality_costs_more() -> None:
    for codec in ("JPEG", "WebP"):
        costs = [encode(picture(3), Setting(codec, 32, 32, quality))[1] for quality in QUALITIES]  # type: ignore[arg-type]
        assert costs == sorted(costs)
        assert costs[0] < costs[-1]


def test_scores_are_of_the_unsplit_network(tiny_bundle: Bundle) -> None:
    seeds = range(24)
    labels = [tiny.labels(seed)[0] for seed in seeds]
    done: list[int] = []
    settings = [Setting("JPEG", 32, 32, 90), Setting("WebP", 2, 2, 10)]
    untouched, fine, coarse = score(
        tiny_bundle, [picture(seed) for seed in seeds], labels, settings=settings, progress=done.append, workers=2
    )
    assert done == list(range(1, 25))
    assert untouched.setting is None
    assert set(untouched.sizes.tolist()) == {32 * 32}
    assert untouched.accuracy == 1.0
    assert fine.accuracy > coarse.accuracy
    assert fine.sizes.mean() > coarse.sizes.mean()
    assert (fine.file_sizes > fine.sizes).all()


def test_labels_decide_what_is_right(tiny_bundle: Bundle) -> None:
    wrong = [(tiny.labels(seed)[0] + 1) % 3 for seed in range(6)]
    (untouched,) = score(tiny_bundle, [picture(seed) for seed in range(6)], wrong, settings=[])
    assert untouched.accuracy == 0.0


def test_a_bundle_without_the_unsplit_network_says_so(tiny_bundle: Bundle) -> None:
    files = {name: tiny_bundle.read(name) for name in tiny_bundle.manifest.files if name != "local.onnx"}
    without = Bundle.build(tiny_bundle.manifest, files)
    with pytest.raises(BundleError, match=r"no local\.onnx"):
        score(without, [picture(0)], [0])


def test_the_cheapest_that_is_good_enough_is_taken() -> None:
    table = [scored("WebP", 900, 90), scored("WebP", 300, 85), scored("WebP", 100, 80), scored("JPEG", 50, 99)]
    table.insert(0, Scored(None, np.array([1]), np.array([1]), np.ones(1, bool)))
    found = cheapest(table, "WebP", accuracy=0.855, tolerance=0.01)
    assert found is not None
    assert found.sizes.mean() == 300
    assert cheapest(table, "WebP", accuracy=0.95, tolerance=0.01) is None


def test_standard_errors() -> None:
    assert standard_error(0.5, 100) == pytest.approx(0.05)
    assert math.isnan(standard_error(0.5, 0))
    one, other = np.array([True, True, False, False]), np.array([True, False, False, False])
    assert paired_standard_error(one, one) == 0
    assert paired_standard_error(one, other) == pytest.approx(0.25)
    assert math.isnan(paired_standard_error(one[:1], other[:1]))
