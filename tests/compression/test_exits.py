"""The local exit's tables: which threshold a stated drop gives, and which arrays are refused."""

import dataclasses

import numpy as np
import pytest

from headwater.compression.bundle import Bundle, to_safetensors
from headwater.compression.errors import BundleError
from headwater.compression.exits import ExitTables, joined, score_of
from headwater.compression.manifest import Exit
from tests.compression.priors import with_value


def arrays(drop: list[float] | None = None, images: int = 999) -> dict[str, np.ndarray]:
    """One width, one mode, five thresholds 0.5 to 0.9."""
    drops = [2.0, 1.0, 0.6, 0.2, 0.0] if drop is None else drop
    return {
        "temperature": np.array([1.5], np.float32),
        "threshold": np.array([[[0.5, 0.6, 0.7, 0.8, 0.9]], [[1.0, 2.0, 3.0, 4.0, 5.0]]]),
        "share": np.array([[[1.0, 0.8, 0.6, 0.4, 0.2]]] * 2, np.float32),
        "drop": np.array([[drops]] * 2, np.float32),
        "calibration_error": np.array([[0.1], [0.02]], np.float32),
        "width_of": np.array([0], np.uint8),
        "images": np.array([images], np.uint32),
        "opinions": np.array([[-2.0, 2.0], [0.0, 0.0], [2.0, -2.0]], np.float32),
    }


@pytest.mark.parametrize(("logits", "opinion"), [([9, 12], 0), ([1, 1.9], 1), ([5, 0], 2), ([-5, -1000], 2)])
def test_an_opinion_is_the_nearest_to_the_logits_whatever_is_added_to_all(logits: list[float], opinion: int) -> None:
    assert ExitTables.from_arrays(arrays()).opinion(np.array(logits, np.float32), 0) == opinion


def test_tables_without_opinions_have_none() -> None:
    bare = ExitTables.from_arrays(arrays() | {"opinions": np.zeros((0, 2), np.float32)})
    assert bare.opinion(np.array([1, 2], np.float32), 0) is None


def test_what_is_joined_is_the_mean() -> None:
    one, other = np.array([[1, 2]], np.float32), np.array([[3, -2]], np.float32)
    np.testing.assert_array_equal(joined(one, other), [[2, 0]])


def test_softmax_is_the_likeliest_class_s_probability() -> None:
    logits = np.array([[0.0, 0.0], [np.log(3), 0.0], [800.0, -800.0]], np.float32)
    np.testing.assert_allclose(score_of(logits, "softmax"), [0.5, 0.75, 1.0], rtol=1e-7)


def test_energy_is_the_logarithm_of_the_sum_and_grows_where_softmax_is_blind() -> None:
    logits = np.array([[1.0, 1.0], [5.0, 5.0], [1e4, 0.0]], np.float32)
    np.testing.assert_allclose(score_of(logits, "energy"), [1 + np.log(2), 5 + np.log(2), 1e4])
    assert score_of(logits[0], "softmax") == score_of(logits[1], "softmax")


@pytest.mark.parametrize(
    ("max_drop", "threshold", "share"),
    [(5, 0.5, 1.0), (1.2, 0.6, 0.8), (1.0, 0.7, 0.6), (0.5, 0.8, 0.4), (0.11, 0.9, 0.2), (0.05, np.inf, 0.0)],
)
def test_the_lowest_threshold_within_the_drop_with_an_image_to_spare(
    max_drop: float, threshold: float, share: float
) -> None:
    tables = ExitTables.from_arrays(arrays())  # a drop of d becomes (999 d + 100) / 1000
    assert tables.threshold_for(0, max_drop, "softmax") == threshold
    assert tables.share_within(0, max_drop, "softmax") == pytest.approx(share)


def test_each_score_has_thresholds_of_its_own() -> None:
    assert ExitTables.from_arrays(arrays()).threshold_for(0, 0.5, "energy") == 4.0


def test_a_lucky_dip_below_a_threshold_that_is_over_the_limit_is_not_taken() -> None:
    tables = ExitTables.from_arrays(arrays([0.0, -1.0, 0.9, 0.2, 0.0]))
    assert tables.threshold_for(0, 0.5, "softmax") == 0.8
    assert (np.diff(tables.bound(0, "softmax")) <= 0).all()


def test_few_images_promise_little() -> None:
    assert ExitTables.from_arrays(arrays([0.0] * 5, images=100)).threshold_for(0, 0.5, "softmax") == np.inf
    assert ExitTables.from_arrays(arrays([0.0] * 5, images=200)).threshold_for(0, 0.5, "softmax") == 0.5


def test_the_promise_is_kept_on_average_over_calibrations() -> None:
    """A thousand small calibrations of an exit whose loss is known: the mean true drop stays within the limit."""
    rng = np.random.default_rng(0)
    N, T, max_drop, drops = 250, 50, 2.0, []
    for _ in range(1000):
        sureness = rng.random(N)  # an image that is sure to u is lost with probability (1 - u) / 5
        lost = (rng.random(N) < (1 - sureness) / 5).astype(float)
        grid = np.sort(sureness)[np.arange(T) * N // T]
        answered = sureness >= grid[:, np.newaxis]
        one = arrays()
        one["threshold"] = np.stack([[grid], [grid]])
        one["share"] = np.stack([[answered.mean(axis=1)]] * 2).astype(np.float32)
        one["drop"] = np.stack([[100 * (answered @ lost) / N]] * 2).astype(np.float32)
        one["images"] = np.array([N], np.uint32)
        threshold = min(ExitTables.from_arrays(one).threshold_for(0, max_drop, "softmax"), 1.0)
        drops.append(100 * (1 - threshold) ** 2 / 10)
    assert 0.6 * max_drop < np.mean(drops) <= max_drop


def test_arrays_come_back_as_they_went() -> None:
    tables = ExitTables.from_arrays(arrays())
    again = ExitTables.from_arrays(tables.arrays())
    for name, array in tables.arrays().items():
        np.testing.assert_array_equal(array, getattr(again, name))
        assert array.dtype == getattr(again, name).dtype


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("threshold", lambda a: a.astype(np.float32), "threshold is float32; want float64"),
        ("threshold", lambda a: a[..., ::-1].copy(), "thresholds do not rise"),
        ("threshold", with_value(4, np.inf), "not finite"),
        ("threshold", lambda a: a[0], "threshold has shape"),
        ("threshold", lambda a: a[:1], r"threshold has shape \(1, 1, 5\); want \(2, 1, 5\)"),
        ("threshold", lambda a: a[:, :, :0], "threshold has shape"),
        ("threshold", lambda a: np.repeat(a, 2001, 2), "T from 1 to 10000"),
        ("share", with_value(0, 1.5), "beyond"),
        ("share", lambda a: a[..., :-1], "share has shape"),
        ("drop", with_value(0, np.nan), "not finite"),
        ("drop", with_value(0, -101), "beyond 100 points"),
        ("drop", lambda a: np.repeat(a, 2, 1), "drop has shape"),
        ("temperature", with_value(0, 0), "not above 0"),
        ("temperature", lambda a: a[np.newaxis], "temperature has shape"),
        ("calibration_error", lambda a: a[:1], "calibration_error has shape"),
        ("width_of", with_value(0, 1), "want an index below 1"),
        ("width_of", lambda a: a[:0], "drop has shape"),
        ("images", with_value(0, 0), "not above 0"),
        ("images", lambda a: a.astype(np.int64), "images is int64"),
    ],
)
def test_unsound_arrays_are_refused(name: str, change: object, message: str) -> None:
    changed = arrays()
    changed[name] = change(changed[name])  # type: ignore[operator]
    with pytest.raises(BundleError, match=message):
        ExitTables.from_arrays(changed)


def test_missing_and_unknown_arrays_are_named() -> None:
    lacking, strange = arrays(), arrays()
    del lacking["drop"]
    strange["extra"] = np.zeros(1)
    with pytest.raises(BundleError, match="it lacks drop"):
        ExitTables.from_arrays(lacking)
    with pytest.raises(BundleError, match="it has extra"):
        ExitTables.from_arrays(strange)


def test_a_bundle_gives_the_tables_that_fit_its_manifest(tiny_bundle: Bundle) -> None:
    tables = tiny_bundle.exits
    assert (tables.widths, tables.modes) == (4, 16)
    assert tables.width_of.tolist() == [mode // 4 for mode in range(16)]


def test_a_manifest_that_names_an_exit_needs_its_files(tiny_bundle: Bundle) -> None:
    for gone in ("exit.onnx", "exit.safetensors"):
        files = {name: tiny_bundle.read(name) for name in tiny_bundle.manifest.files if name != gone}
        with pytest.raises(BundleError, match=f"the manifest lists no {gone}"):
            Bundle.build(tiny_bundle.manifest, files)
    with pytest.raises(BundleError, match="answers 'colour', which is no task with labels"):
        dataclasses.replace(tiny_bundle.manifest, exit=Exit("colour", 1))
    with pytest.raises(BundleError, match="has no local exit"):
        _ = Bundle.build(dataclasses.replace(tiny_bundle.manifest, exit=None), files).exits


def test_tables_of_another_bundle_are_refused(tiny_bundle: Bundle) -> None:
    foreign = tiny_bundle.with_file("exit.safetensors", to_safetensors(arrays()))
    with pytest.raises(BundleError, match=r"for 1 widths, by mode \[0\]; the manifest has 4"):
        _ = foreign.exits
    with pytest.raises(BundleError, match="no safetensors file"):
        _ = tiny_bundle.with_file("exit.safetensors", b"\xff" * 40).exits
