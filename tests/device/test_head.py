"""The head's latents, symbols and frames against onnxruntime and the oracle of the small bundle."""

import gc
import weakref

import numpy as np
import pytest
from PIL import Image

from headwater.compression.bundle import Bundle
from headwater.compression.parts import Joiner
from headwater.device.head import FrameMaker, Head
from tests import tiny


@pytest.fixture(scope="module")
def maker(tiny_bundle: Bundle) -> FrameMaker:
    return FrameMaker(tiny_bundle)


def picture(seed: int) -> Image.Image:
    return Image.fromarray(tiny.image(seed)[0])


def test_symbols_are_those_of_the_oracle(tiny_bundle: Bundle) -> None:
    head = Head(tiny_bundle)
    for mode in tiny_bundle.manifest.modes:
        latent = head.latent(tiny.image(5), mode.width)
        assert latent.shape == (mode.channels, 8, 8)
        quantised = head.quantise(latent, mode.index)
        assert quantised.dtype == np.int16
        np.testing.assert_array_equal(quantised, tiny.symbols(tiny_bundle, 5, mode.index))


@pytest.mark.parametrize("mode", [0, 3, 10, 15])
def test_frames_are_those_of_the_oracle(tiny_bundle: Bundle, maker: FrameMaker, mode: int) -> None:
    coded = maker.make(picture(7), mode)
    assert coded.data == tiny_bundle.frames().pack(tiny.frame(tiny_bundle, 7, mode))
    assert min(coded.seen.prepare_ms, coded.seen.head_ms, coded.code_ms) > 0


def test_long_frames_are_given_in_parts_too(tiny_bundle: Bundle, maker: FrameMaker) -> None:
    in_parts = FrameMaker(tiny_bundle, parts_above=60)
    lengths = set()
    for mode in range(16):
        for groups in (1, 2, 3):
            coded = in_parts.make(picture(7), mode, groups)
            assert coded.data == maker.make(picture(7), mode, groups).data
            assert coded.parts == () or len(coded.data) > 60
            lengths.add(len(coded.parts))
            if coded.parts:
                joiner = Joiner(tiny_bundle.frames(), groups, 200)
                for part in coded.parts:
                    joiner.add(part.data)
                assert joiner.frame == tiny.frame(tiny_bundle, 7, mode, groups)
    assert lengths == {0, 2}
    assert maker.make(picture(7), 15).parts == ()


def test_fewer_groups_make_a_frame_that_decodes(tiny_bundle: Bundle, maker: FrameMaker) -> None:
    coded = maker.make(picture(7), 15, groups=2)
    frame = tiny_bundle.frames().unpack(coded.data)
    assert (frame.mode, frame.groups) == (15, 2)
    decoded = tiny_bundle.coder().decode(frame.payload, 15, 2)
    np.testing.assert_array_equal(decoded, tiny.symbols(tiny_bundle, 7, 15)[: tiny.GROUP_ENDS[1]])


def test_self_contained_frames_name_their_bundle(tiny_bundle: Bundle, maker: FrameMaker) -> None:
    assert tiny_bundle.frames().unpack_file(maker.self_contained(maker.make(picture(7), 3))).mode == 3


def test_a_frame_that_is_too_long_is_coded_again_at_the_next_lower_gains_of_its_width(maker: FrameMaker) -> None:
    seen = maker.look(picture(7), 11)
    sizes = {mode: len(maker.code(seen, mode).data) for mode in (8, 9, 10, 11)}
    assert sorted(sizes.values()) == list(sizes.values()), "the finer, the longer"
    for most_bytes, mode in (
        (None, 11),
        (sizes[11], 11),
        (sizes[11] - 1, 10),
        (sizes[9], 9),
        (sizes[8] - 1, 8),
        (0, 8),
    ):
        coded = maker.code(seen, 11, most_bytes=most_bytes)
        assert (coded.mode, coded.frame.mode, len(coded.data)) == (mode, mode, sizes[mode])
        assert coded.data == maker.make(picture(7), mode).data, "the latent is as it was"
    cut = maker.code(seen, 11, groups=1, most_bytes=len(maker.code(seen, 11, groups=1).data))
    assert (cut.mode, cut.frame.groups) == (11, 1)


def test_any_picture_is_taken(maker: FrameMaker) -> None:
    wide = Image.new("RGBA", (640, 48), (200, 10, 10, 255))
    assert maker.make(wide, 0).data[0] == 0


def test_the_bundle_can_be_freed(tiny_bundle: Bundle) -> None:
    copy = Bundle(tiny_bundle.manifest_bytes, {name: tiny_bundle.read(name) for name in tiny_bundle.manifest.files})
    gone = weakref.ref(copy)
    maker = FrameMaker(copy)
    del copy
    gc.collect()
    assert gone() is None
    assert maker.make(picture(1), 0).data
