"""What a new tail learns from is what a server's decoder gives."""

import numpy as np
import onnxruntime as ort
import pytest
import torch

from headwater.compression.bundle import Bundle
from headwater.server.training.frozen import FrozenCodec
from headwater.server.training.recipe import Recipe
from tests import tiny

RECIPE = Recipe(groups=3, drop_groups=0.5)


def test_features_are_those_of_decoded_frames_in_every_mode_and_cut(tiny_bundle: Bundle) -> None:
    cases = [(seed, mode, groups) for seed, mode in enumerate(range(16)) for groups in (1, 2, 3)]
    modes, groups = [mode for _, mode, _ in cases], [groups for *_, groups in cases]
    frames = [tiny.frame(tiny_bundle, *case) for case in cases]
    latents, errors = tiny_bundle.coder().decode_batch([frame.payload for frame in frames], modes, groups)
    assert errors == [None] * len(cases)
    decoder = ort.InferenceSession(tiny_bundle.read("decoder.onnx"), providers=["CPUExecutionProvider"])
    (wanted,) = decoder.run(["features"], {"latent": latents, "mode": np.array(modes)})
    images = np.stack([tiny.image(seed) for seed, *_ in cases])
    got = FrozenCodec(tiny_bundle, RECIPE).features(images, modes, groups)
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert not np.allclose(got[-3], got[-1]), "a cut changes nothing"


def test_random_features_go_through_modes_and_cuts(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = FrozenCodec(tiny_bundle, RECIPE)
    seen: list[tuple[int, int]] = []
    features = codec.features

    def noted(images: np.ndarray, modes: list[int], groups: list[int]) -> np.ndarray:
        seen.extend(zip(modes, groups, strict=True))
        return features(images, modes, groups)

    monkeypatch.setattr(codec, "features", noted)
    images = torch.from_numpy(np.stack([tiny.image(0)] * 200))
    first = codec.random_features(images, torch.Generator().manual_seed(3))
    assert {mode for mode, _ in seen} == set(range(16))
    assert {groups for _, groups in seen} == {1, 2, 3}
    again = codec.random_features(images, torch.Generator().manual_seed(3))
    torch.testing.assert_close(first, again)
