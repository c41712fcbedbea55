"""Batches and augmentation."""

import torch

from headwater.compression.learning.augmentation import Augmentation
from headwater.compression.learning.samples import PIXEL_MEAN, PIXEL_STD, Samples, augment, normalise, paste

STILL = Augmentation(flip_horizontal=False, shift=0, scale=0, rotate_degrees=0, brightness=0)


def test_an_epoch_has_every_image_once_in_an_order_set_by_the_seed() -> None:
    samples = Samples(torch.zeros(50, 1, 4, 4, dtype=torch.uint8), {})
    orders = [torch.cat(list(samples.batches(16, torch.Generator().manual_seed(s)))) for s in (1, 1, 2)]
    assert sorted(orders[0].tolist()) == list(range(50))
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


def test_no_augmentation_leaves_the_pixels() -> None:
    images = torch.randint(0, 256, (3, 1, 16, 16), dtype=torch.uint8)
    torch.testing.assert_close(augment(images, STILL, torch.Generator()), images.float(), atol=0.01, rtol=0)


def test_flips_mirror_some_images_and_leave_the_others() -> None:
    images = torch.randint(0, 256, (64, 1, 16, 16), dtype=torch.uint8)
    how = Augmentation(shift=0.2, brightness=0.5).mirroring
    flipped = augment(images, how, torch.Generator().manual_seed(0)).round()
    same = (flipped == images).flatten(1).all(1)
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    assert (same | mirrored).all()
    assert 15 < same.sum() < 49


def test_pixels_stay_in_range() -> None:
    images = torch.randint(0, 256, (16, 3, 16, 16), dtype=torch.uint8)
    out = augment(images, Augmentation(brightness=0.5), torch.Generator().manual_seed(0))
    assert out.min() >= 0
    assert out.max() <= 255


def test_pasting_leaves_whole_images_alone_and_takes_the_rest_from_the_next() -> None:
    images = torch.arange(24.0).view(24, 1, 1, 1).expand(24, 1, 32, 32)
    pasted, whole = paste(images, 0.5, torch.Generator().manual_seed(3))
    assert 4 < int(whole.sum()) < 20
    for index in range(24):
        own, other = float(index), float((index - 1) % 24)
        assert set(pasted[index].unique().tolist()) <= {own, other}
        if whole[index]:
            assert bool((pasted[index] == own).all())
    changed = (pasted != images).flatten(1).any(dim=1)
    assert int(changed.sum()) >= int((~whole).sum()) - 1, "a rectangle may be too small to hit a pixel, but rarely"


def test_grey_pixels_are_channels_last_for_what_comes_after() -> None:
    grey = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8)
    pixels = normalise(grey)
    assert torch.equal(pixels, (grey.float() - PIXEL_MEAN) / PIXEL_STD)
    features = torch.nn.functional.conv2d(pixels, torch.ones(16, 1, 3, 3))
    assert features.is_contiguous(memory_format=torch.channels_last)
