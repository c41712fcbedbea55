"""A bundle that computes something else here than where it was built is noticed before it is used."""

import pytest

from headwater.compression.bundle import Bundle, to_safetensors
from headwater.compression.errors import BundleError
from headwater.device.exit import LocalExit
from headwater.device.head import FrameMaker
from headwater.device.rollout import golden
from tests import tiny
from tests.versions import broken, version


def check(bundle: Bundle) -> None:
    golden.check(bundle, FrameMaker(bundle, 1, LocalExit(bundle)))


def test_what_computes_as_it_should() -> None:
    check(version(0))
    check(version(1))


def test_another_result_than_where_it_was_built() -> None:
    with pytest.raises(BundleError, match="is off by 5 on this device"):
        check(broken(0))


def test_a_head_of_another_version() -> None:
    mixed = version(0).with_file("head_0.5.onnx", version(1).read("head_0.5.onnx"))
    with pytest.raises(BundleError, match=r"head of width 0\.5"):
        check(mixed)


def test_nothing_to_check_by() -> None:
    with pytest.raises(BundleError, match=r"has no golden\.safetensors"):
        check(tiny.bundle())
    empty = tiny.bundle().with_file("golden.safetensors", to_safetensors({"image": tiny.image(0)}))
    with pytest.raises(BundleError, match="holds no images"):
        check(empty)
    only_images = to_safetensors({"image": tiny.image(0)[None]})
    with pytest.raises(BundleError, match="holds no latents"):
        check(tiny.bundle().with_file("golden.safetensors", only_images))
