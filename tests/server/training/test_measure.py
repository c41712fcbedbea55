"""How like its original a picture is."""

import numpy as np
import pytest

from headwater.server.training.measure import psnr


def test_psnr_is_that_of_the_rounded_pixels() -> None:
    wanted = np.full((3, 1, 4, 4), 250, np.uint8)
    pictures = np.stack([wanted[0] + 10.0, wanted[1] + 0.4, wanted[2] - 25.5]).astype(np.float32)
    ten_off, same, far = psnr(pictures, wanted)
    assert ten_off == pytest.approx(20 * np.log10(255 / 5)), "255 is the most that a pixel can be"
    assert same == pytest.approx(20 * np.log10(255 / 0.1)), "what is the same is not infinitely alike"
    assert far == pytest.approx(20 * np.log10(255 / 26))
