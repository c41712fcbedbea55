"""From a bundle to a smaller one, without Flower; a channel takes a microsecond here, so that no clock is raced."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from headwater.compression.errors import LearningError
from headwater.compression.image import InputSpec
from headwater.compression.learning.network import SplitNetwork
from headwater.compression.learning.reading import network_of
from headwater.compression.learning.samples import Samples
from headwater.compression.learning.surgery import units_of
from headwater.server.federation.pruning import structured
from headwater.server.federation.pruning.latency import Curve, Times
from headwater.server.federation.pruning.soft_masks import StructuredSettings
from headwater.server.rollout.build import Held, rebuild_from
from headwater.server.training.measure import Bench
from tests.compression.learning import small
from tests.server.rollout import test_build


def _times(network: SplitNetwork) -> Times:
    sizes = {name: unit.channels for name, unit in units_of(network).items()}
    head = sum(size for name, size in sizes.items() if name.startswith("head"))
    return Times(dict.fromkeys(network.widths, head / 1000), (sum(sizes.values()) / 1000 - head / 1000,))


def _curves(network: SplitNetwork, spec: InputSpec, names: Sequence[str]) -> dict[str, Curve]:
    del spec
    return {name: Curve((0, n), (0.0, n / 1000)) for name in names for n in [units_of(network)[name].channels]}


@pytest.fixture
def clockless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structured, "measure", lambda network, _: _times(network))
    monkeypatch.setattr(structured, "curves", _curves)
    monkeypatch.setattr(structured, "beside", lambda networks, _: [_times(each) for each in networks])


def _images() -> Held:
    labels = torch.arange(12) % small.CLASSES
    return Held(*(Samples(small.images(12, seed), {test_build.TASK.name: labels}) for seed in (1, 2)))


@pytest.mark.usefixtures("clockless")
def test_a_bundle_gets_smaller_and_is_whole() -> None:
    old, images, said = test_build.parent(), _images(), list[str]()
    pruning = structured.Pruning(old, images.train, StructuredSettings(0.5, 0.7, "gradients", 2))
    carved = pruning.here(said.append)
    assert carved.head <= 0.5
    assert carved.tails[0] <= 0.7
    pruning.tune(carved, 1, said.append)
    assert len(said) == 3
    new = rebuild_from(old, carved.network, images, created=test_build.LATER).bundle
    assert new.manifest.parent == old.id.hex()
    for before, after in zip(old.manifest.modes, new.manifest.modes, strict=True):
        assert after.head_macs < 0.8 * before.head_macs
    tail = test_build.TASK.tail_file
    assert len(new.read(tail)) < len(old.read(tail))
    read = network_of(new)
    assert {n: u.channels for n, u in units_of(read).items()} == {n: c for n, (_, c) in carved.channels.items()}
    bench = Bench(new, images.test.images.numpy())
    assert all(np.isfinite(bench.run(mode).logits[test_build.TASK.name]).all() for mode in new.manifest.modes)


def _carved_where(
    whole: Callable[[float], float], target: float, monkeypatch: pytest.MonkeyPatch
) -> tuple[structured.Carved, int, int]:
    """Where a smaller network's head takes ``whole`` of what its layers take: it, its channels, and those usually."""

    def changed(networks: Sequence[SplitNetwork], _: InputSpec) -> list[Times]:
        before, after = (_times(each) for each in networks)
        return [before, Times({width: whole(ms) for width, ms in after.heads.items()}, after.tails)]

    images, settings = _images(), StructuredSettings(target, 1.0, "activations", 1)
    usual = structured.Pruning(test_build.parent(), images.train, settings).here(lambda _: None)
    monkeypatch.setattr(structured, "beside", changed)
    found = structured.Pruning(test_build.parent(), images.train, settings).here(lambda _: None)
    return found, *(sum(after for _, after in each.channels.values()) for each in (found, usual))


@pytest.mark.usefixtures("clockless")
def test_where_the_whole_takes_longer_than_its_layers_fewer_channels_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    found, channels, usually = _carved_where(lambda ms: 0.05 + ms, 0.6, monkeypatch)
    assert found.head <= 0.6
    assert channels < usually


@pytest.mark.usefixtures("clockless")
def test_where_the_whole_takes_less_than_its_layers_more_channels_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    found, channels, usually = _carved_where(lambda ms: 0.6 * ms, 0.5, monkeypatch)
    assert found.head <= 0.5
    assert channels > usually


@pytest.mark.usefixtures("clockless")
def test_what_is_quick_enough_but_never_by_the_margin_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _times(network_of(test_build.parent())).heads[1.0]
    found, _, _ = _carved_where(lambda ms: max(ms, 0.99 * 0.6 * whole), 0.6, monkeypatch)
    assert structured.MARGIN * 0.6 < found.head <= 0.6


@pytest.mark.usefixtures("clockless")
def test_what_cannot_be_made_that_quick_is_an_error() -> None:
    pruning = structured.Pruning(test_build.parent(), _images().train, StructuredSettings(0.01, 1.0, "gradients", 1))
    with pytest.raises(LearningError, match="ask for a longer time"):
        pruning.here(lambda _: None)
