"""A small network that reads digits, and its bundle, as `headwater train` would build one: made in a second or two.

It has seen four digits in ten only a little, so that there is something left to learn on devices. Images are 16x16.

Legend: B batch, K classes.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from headwater.compression.bundle import Bundle, to_safetensors
from headwater.compression.datasets import open_dataset
from headwater.compression.decoder import Decoder
from headwater.compression.encoder import Head
from headwater.compression.entropy import FactorizedPrior, GainUnit
from headwater.compression.exits import SCORES, ExitTables
from headwater.compression.image import InputSpec
from headwater.compression.learning.exit_net import ExitNet
from headwater.compression.learning.network import Parts, SplitNetwork
from headwater.compression.learning.reading import stored
from headwater.compression.learning.samples import Samples, normalise
from headwater.compression.learning.tail import Tail
from headwater.compression.manifest import Exit, LatentSpec, Manifest, Mode, Task, head_file
from headwater.compression.slimmable import ConvNorm, InvertedResidual
from headwater.compression.tables import PriorTables
from headwater.server.training.graphs import decoder_graph, exit_graph, head_graph, tail_graph

SPEC = InputSpec("L", 16, 16)
WIDTHS, GAINS = (0.5, 1.0), (1.0, 4.0)
CHANNELS, CELLS, GROUP_ENDS = 6, 4, (2, 4, 6)
TASK = Task("digit", tuple(map(str, range(10))))
AUGMENTATION = {"flip_horizontal": False, "shift": 0.05, "scale": 0.05, "rotate_degrees": 5.0, "brightness": 0.05}
SEEN, HELD_OUT = 300, 600
"""The first images are what the network was trained on, the last are held out; devices have those between."""


@cache
def digits() -> Samples:
    """All 1,797."""
    return Samples.read(open_dataset("digits"), SPEC, (TASK.name,))


def some(indices: torch.Tensor | slice) -> Samples:
    """Some of them."""
    samples = digits()
    return Samples(samples.images[indices], {TASK.name: samples.labels[TASK.name][indices]})


def on_devices() -> Samples:
    """Those that nobody has learnt from yet."""
    return some(slice(SEEN, -HELD_OUT))


def held_out() -> Samples:
    """Those that nobody learns from."""
    return some(slice(-HELD_OUT, None))


@torch.random.fork_rng(devices=[])
def new_network(seed: int = 0) -> SplitNetwork:
    """Untrained, its norms with statistics."""
    torch.manual_seed(seed)
    blocks = [InvertedResidual.make(16, 12, 3, 2, 1, WIDTHS), InvertedResidual.make(12, 16, 3, 1, 4, WIDTHS)]
    modes = len(WIDTHS) * len(GAINS)
    parts = Parts(
        Head(ConvNorm(1, 16, 3, stride=2, widths=WIDTHS), blocks, CHANNELS, WIDTHS),
        GainUnit(GAINS * len(WIDTHS), CHANNELS),
        FactorizedPrior(modes, CHANNELS),
        Decoder(CHANNELS, 16, modes, 24),
        [Tail([InvertedResidual.make(16, 24, 3, 1, 3)], ConvNorm(24, 64, 1), nn.Linear(64, 10), dropout=0.0)],
        ExitNet.make(CHANNELS, CELLS, 10, WIDTHS),
        GROUP_ENDS,
        (TASK.name,),
    )
    return SplitNetwork(parts)


@cache
@torch.random.fork_rng(devices=[])
def _trained() -> dict[str, torch.Tensor]:
    """A few passes over few images."""
    network, samples = new_network(), some(slice(SEEN))
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), 4e-3)
    network.train()
    torch.manual_seed(0)
    for _ in range(8):
        for indices in samples.batches(50, generator):
            optimizer.zero_grad()
            _loss(network, samples.images[indices], samples.labels[TASK.name][indices], generator).backward()
            optimizer.step()
    return network.state_dict()


def _loss(
    network: SplitNetwork, images: torch.Tensor, labels: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    loss = torch.zeros(())
    for width in WIDTHS:
        mode = network.sample_modes(width, len(images), generator)
        coded = network.code(images, width, mode, network.sample_groups(len(images), 0.1, generator))
        assert network.exit is not None
        for logits in (
            next(network.typed_tails())(network.decoder(coded.latent, mode)),
            network.exit(coded.latent, width),
        ):
            loss = loss + functional.cross_entropy(logits, labels)
        loss = loss + 3e-4 * coded.bits.mean()
    return loss


def network() -> SplitNetwork:
    """Trained a little, frozen; a new copy each time."""
    made = new_network()
    made.load_state_dict(_trained())
    return made.eval().frozen().eval()


@cache
def bundle() -> Bundle:
    """All that a bundle needs; figures of modes and of the exit are made up."""
    source = network()
    assert source.exit is not None
    files = {head_file(width): head_graph(source.head, width, SPEC)[0] for width in WIDTHS}
    files["decoder.onnx"], _ = decoder_graph(source.decoder, CELLS)
    files[TASK.tail_file], _ = tail_graph(next(source.typed_tails()), 16, CELLS)
    files["exit.onnx"], plan = exit_graph(source.exit, np.ones(len(WIDTHS), np.float32))
    files["exit.safetensors"] = to_safetensors(_exit_tables().arrays())
    files["tables.safetensors"] = to_safetensors(_tables(source).arrays())
    files["weights.safetensors"] = to_safetensors(stored(source))
    manifest = Manifest(
        name="digits",
        created="2026-01-01T00:00:00+00:00",
        input=SPEC,
        latent=LatentSpec(CHANNELS, CELLS, CELLS),
        modes=_modes(),
        tasks=(TASK,),
        exit=Exit(TASK.name, plan.macs),
        recipe={"rate_weights": [3e-4, 1e-4], "augmentation": AUGMENTATION, "test_share": 0.25, "seed": 0},
        data={"name": "digits", "train_labels": {TASK.name: [30] * 10}},
    )
    return Bundle.build(manifest, files)


def _modes() -> tuple[Mode, ...]:
    scores = {TASK.name: 0.8}
    return tuple(
        Mode(
            index=index,
            width=WIDTHS[index // len(GAINS)],
            gain=index % len(GAINS),
            channels=CHANNELS,
            mean_bytes=20.0 + index,
            p95_bytes=30.0 + index,
            accuracy=scores,
            balanced_accuracy=scores,
            auroc={},
            head_macs=1000,
            head_parameters=1000,
        )
        for index in range(len(WIDTHS) * len(GAINS))
    )


@torch.no_grad()
def _tables(source: SplitNetwork) -> PriorTables:
    counts = np.full((source.modes, CHANNELS, 2 * 255 + 2), 0.01)
    gain = source.gains.gain()
    for mode in range(source.modes):
        y = source.head(normalise(digits().images[:SEEN]), WIDTHS[mode // len(GAINS)])
        symbols = (y * gain[mode][None, :, None, None]).round().clamp(-255, 255).long().numpy() + 255
        for c in range(CHANNELS):
            counts[mode, c, :511] += np.bincount(symbols[:, c].ravel(), minlength=511)
    lows = [[-255] * CHANNELS] * source.modes
    step = source.gains.step().numpy()
    return PriorTables.from_counts([list(m) for m in counts], lows, gain.numpy(), step, GROUP_ENDS, plane=CELLS * CELLS)


def _exit_tables() -> ExitTables:
    S, W, M = len(SCORES), len(WIDTHS), len(WIDTHS) * len(GAINS)
    return ExitTables(
        temperature=np.ones(W, np.float32),
        threshold=np.tile(np.array([0.3, 0.9]), (S, W, 1)),
        share=np.tile(np.array([1.0, 0.5], np.float32), (S, W, 1)),
        drop=np.tile(np.array([5.0, 1.0], np.float32), (S, M, 1)),
        calibration_error=np.full((2, W), 0.05, np.float32),
        width_of=np.array([m // len(GAINS) for m in range(M)], np.uint8),
        images=np.array([100], np.uint32),
        opinions=np.zeros((0, len(TASK.labels)), np.float32),
    )
