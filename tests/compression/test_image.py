"""Pictures of any kind become the array that a head takes."""

import io
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from headwater.compression.errors import BundleError
from headwater.compression.image import InputSpec, to_png


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "HSV", "I", "F"])
@pytest.mark.parametrize("spec", [InputSpec("L", 32, 64), InputSpec("RGB", 16, 16)])
def test_any_kind_of_picture_has_the_shape_and_keeps_its_brightness(mode: str, spec: InputSpec) -> None:
    grey = Image.new("L", (37, 21), 255 if mode == "1" else 100)
    array = spec.apply(grey.convert("RGB").convert(mode) if mode in {"CMYK", "HSV"} else grey.convert(mode))
    assert array.shape == spec.shape
    assert array.dtype == np.uint8
    assert abs(float(array.mean()) - (255 if mode == "1" else 100)) < 3


def test_sixteen_bit_pictures_are_scaled_not_clipped() -> None:
    pixels = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    array = InputSpec("L", 32, 32).apply(Image.fromarray(pixels))
    assert array.min() == 0
    assert array.max() == 255
    assert abs(float(array.mean()) - 127.5) < 2


def test_the_right_size_and_mode_pass_through_unchanged() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    assert (InputSpec("L", 8, 8).apply(Image.fromarray(pixels))[0] == pixels).all()


@pytest.mark.parametrize(("mode", "height", "width"), [("CMYK", 8, 8), ("L", 0, 8), ("L", 8, 5000)])
def test_impossible_inputs_are_refused(mode: str, height: int, width: int) -> None:
    with pytest.raises(BundleError, match="input"):
        InputSpec(mode, height, width)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(1, 3, 5), (3, 5, 3)])
def test_a_png_of_an_image_is_that_image(shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with Image.open(io.BytesIO(to_png(image))) as decoded:
        assert decoded.format == "PNG"
        mode: Literal["L", "RGB"] = "L" if shape[0] == 1 else "RGB"
        np.testing.assert_array_equal(InputSpec(mode, *shape[1:]).apply(decoded), image)
