"""A bundle's network is what its graphs compute, the same arrays every time; widths, parts and versions of it."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch

from headwater.compression.bundle import Bundle, to_safetensors
from headwater.compression.errors import BundleError, LearningError
from headwater.compression.learning.arrays import arrays_of, load, version_of
from headwater.compression.learning.layout import HEAD_PARTS, cut_masks, layout_of, part_of
from headwater.compression.learning.network import SplitNetwork
from headwater.compression.learning.reading import network_of, stored
from headwater.compression.learning.samples import normalise
from tests import learnable


@pytest.fixture(scope="module")
def network() -> SplitNetwork:
    return network_of(learnable.bundle())


def graph(name: str, **inputs: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(learnable.bundle().read(name), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, inputs)
    return np.asarray(found)


@pytest.mark.parametrize("width", learnable.WIDTHS)
@torch.no_grad()
def test_it_computes_what_the_graphs_do(network: SplitNetwork, width: float) -> None:
    images = learnable.held_out().images[:4]
    latent = network.head(normalise(images), width)
    wanted = np.concatenate([graph(f"head_{width:g}.onnx", image=image[None].numpy()) for image in images])
    # Weights of a thousand numbers and more are kept in half precision beside the graphs.
    np.testing.assert_allclose(latent.numpy(), wanted, atol=0.01 * np.abs(wanted).max())
    mode = np.full(len(images), network.mode(width, -1))
    features = graph("decoder.onnx", latent=latent.numpy(), mode=mode)
    (tail,) = network.typed_tails()
    read = torch.from_numpy(features)
    np.testing.assert_allclose(tail(read).numpy(), graph(learnable.TASK.tail_file, features=features), atol=1e-4)
    assert network.exit is not None
    index = np.array([learnable.WIDTHS.index(width)])
    exits = np.concatenate([graph("exit.onnx", latent=one[None].numpy(), width=index) for one in latent])
    np.testing.assert_allclose(network.exit(latent, width).numpy(), exits, atol=1e-4)


def test_a_frozen_network_computes_what_it_was_frozen_from() -> None:
    source = learnable.new_network()
    source.train()
    for width in learnable.WIDTHS:
        source(learnable.held_out().images[:32], width, 0)
    source.eval()
    frozen = source.frozen().eval()
    images = learnable.held_out().images[:8]
    with torch.no_grad():
        for width in learnable.WIDTHS:
            for was, now in (
                (source.head(normalise(images), width), frozen.head(normalise(images), width)),
                (source(images, width, 1)[0], frozen(images, width, 1)[0]),
            ):
                torch.testing.assert_close(now, was, rtol=1e-3, atol=1e-3)
    assert not list(frozen.buffers())[1:], "but for the groups of channels there is nothing that batches could change"


def test_an_image_s_answer_does_not_depend_on_its_batch(network: SplitNetwork) -> None:
    images = learnable.held_out().images[:5]
    with torch.no_grad():
        alone, together = network(images[:1], 1.0, -1)[0], network(images, 1.0, -1)[0][:1]
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4)


def test_a_bundle_written_from_its_network_has_the_same_arrays(network: SplitNetwork) -> None:
    bundle, arrays = learnable.bundle(), arrays_of(network)
    again = network_of(bundle.with_file("weights.safetensors", to_safetensors(stored(network))))
    assert version_of(arrays_of(again)) == version_of(arrays) == version_of(arrays_of(network_of(bundle)))


def test_a_version_names_every_bit(network: SplitNetwork) -> None:
    arrays = arrays_of(network)
    version = version_of(arrays)
    assert version == version_of(dict(reversed(arrays.items())))
    for change in (
        {"gains.log_gain": np.nextafter(arrays["gains.log_gain"], np.float32(9))},
        {"gains.log_gain": arrays["gains.log_gain"].T},
        {"gains.log_gains": arrays["gains.log_gain"]},
    ):
        assert version_of({**arrays, **change}) != version
    assert version_of({"a": np.array([1, 2], np.float32)}) == "0618ae5402681e84dcca9ad3459df908"


def test_loading_takes_all_arrays_or_none(network: SplitNetwork) -> None:
    arrays = arrays_of(network)
    changed = {name: array + 1 for name, array in arrays.items()}
    target = network_of(learnable.bundle())
    load(target, changed)
    assert version_of(arrays_of(target)) == version_of(changed)
    with pytest.raises(LearningError, match=r"1 arrays are missing or unknown, such as gains.log_gain"):
        load(target, {name: array for name, array in arrays.items() if name != "gains.log_gain"})
    with pytest.raises(LearningError, match=r"gains.log_gain is \(6, 4\); the network has \(4, 6\)"):
        load(target, {**arrays, "gains.log_gain": arrays["gains.log_gain"].T})
    assert version_of(arrays_of(target)) == version_of(changed)


def test_a_bundle_without_trainable_weights_says_so(tiny_bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"weights.safetensors"):
        network_of(tiny_bundle)
    bundle = learnable.bundle()
    weights = bundle.arrays("weights.safetensors")
    del weights["head.stem.norms.0_5.shift"]
    with pytest.raises(BundleError, match=r"has nothing under head.stem.norms.0_5.shift, .* build it again"):
        network_of(bundle.with_file("weights.safetensors", to_safetensors(weights)))


# ---------------------------------------------------------------- layout


def test_a_narrow_sub_network_is_what_its_width_computes_with(network: SplitNetwork) -> None:
    """Whatever is outside of the layout of a width can be anything: no output of that width changes."""
    layout, arrays = layout_of(network), arrays_of(network)
    inside = {name: np.zeros(array.shape, np.bool_) for name, array in arrays.items()}
    for part in layout.cut(inside, 0.5).values():
        part[...] = True
    spoilt = {name: np.where(inside[name], array, np.float32(7)) for name, array in arrays.items()}
    target, images = network_of(learnable.bundle()), learnable.held_out().images[:4]
    assert target.exit is not None
    with torch.no_grad():
        before = [target(images, 0.5, gain)[0] for gain in (0, 1)]
        wide = target(images, 1.0, 0)[0]
        load(target, spoilt)
        assert all(torch.equal(target(images, 0.5, gain)[0], logits) for gain, logits in enumerate(before))
        assert not torch.equal(target(images, 1.0, 0)[0], wide)
    assert not all(each.all() for each in inside.values())


def test_every_coordinate_of_a_width_is_used_by_it() -> None:
    """One pass of every width up to it, backwards: no gradient outside the layout, and some in every array inside."""
    target = network_of(learnable.bundle())
    images = learnable.held_out().images[:4]
    assert target.exit is not None
    modes = torch.arange(2)
    coded = target.code(images[:2], 0.5, modes, torch.tensor([3, 3]))
    logits = next(target.typed_tails())(target.decoder(coded.latent, modes))
    (coded.bits.sum() + logits.square().sum() + target.exit(coded.latent, 0.5).square().sum()).backward()
    gradients = {
        name: np.zeros(tuple(p.shape), np.float32) if p.grad is None else p.grad.numpy()
        for name, p in target.named_parameters()
    }
    layout = layout_of(target)
    inside = {name: np.zeros(gradient.shape, np.bool_) for name, gradient in gradients.items()}
    for part in layout.cut(inside, 0.5).values():
        part[...] = True
    for name, gradient in gradients.items():
        assert not gradient[~inside[name]].any(), name
    assert all(part.any() for part in layout.cut(gradients, 0.5).values())


def test_the_head_s_part_has_neither_decoder_nor_tail(network: SplitNetwork) -> None:
    layout = layout_of(network, "head")
    assert {name.split(".")[0] for name in layout.shapes} == set(HEAD_PARTS)
    assert layout.at(0.5).size < layout.size < layout_of(network).size
    with pytest.raises(LearningError, match="want one of all, head"):
        part_of("tail")


def test_masks_are_cut_as_arrays_are(network: SplitNetwork) -> None:
    layout = layout_of(network, "head")
    name = "head.blocks.1.expand.conv.weight"
    every = np.arange(np.prod(layout.shapes[name])).reshape(layout.shapes[name])
    masks = {name: every % 3 == 0, "tails.0.top.conv.weight": np.ones(3, np.bool_)}
    cut = cut_masks(layout, masks, 0.5)
    assert list(cut) == [name]
    np.testing.assert_array_equal(cut[name], masks[name][:24])


def masks_of() -> np.ndarray:
    return np.ones(3, np.bool_)
