"""How like its original a picture is."""

import numpy as np
import pytest

from headwater.server.training.measure import psnr


def test_psnr_is_that_of_each_picture() -> None:
    wanted = np.full((3, 1, 4, 4), 250, np.uint8)
    pictures = np.stack([wanted[0] - 10, wanted[1], wanted[2] - 50])
    ten_off, same, far = psnr(pictures, wanted)
    assert ten_off == pytest.approx(20 * np.log10(255 / 10))
    assert same == pytest.approx(20 * np.log10(255 / 0.1)), "what is the same is not infinitely alike"
    assert far == pytest.approx(20 * np.log10(255 / 50))
