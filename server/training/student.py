"""The student: slimmable head, gains, prior, decoder and the teacher's own later blocks as tails.

Built from a fine-tuned teacher. Every step of training runs every width, each on its share of the batch (so that, as
in the sandwich rule of Yu and Huang, "Universally Slimmable Networks", ICCV 2019, widest and narrowest always pull
together, at the price of one pass of the tail), each sample at a random gain and some of them cut after a random
channel group, so that every mode and every cut is seen.

Legend: B batch, C latent channels, H height, W width, M modes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from headwater.compression.decoder import Decoder
from headwater.compression.encoder import Head, sort_channels
from headwater.compression.entropy import FactorizedPrior, GainUnit, round_straight_through
from headwater.compression.errors import SettingsError
from headwater.compression.slimmable import ConvNorm, InvertedResidual
from headwater.server.training.exit_net import ExitNet
from headwater.server.training.lite import Lite0, Tail, normalise
from headwater.server.training.reconstruct import RECONSTRUCT, Reconstructor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headwater.server.training.recipe import Recipe


@dataclass(frozen=True)
class Coded:
    """What a head's output becomes on the way to the tails."""

    latent: torch.Tensor
    """Dequantised, [B, C, H, W]; zero where a group was dropped."""
    bits: torch.Tensor
    """Estimated size of each sample's payload, [B]."""


class Student(nn.Module):
    """All that a bundle holds, trainable."""

    def __init__(self, teacher: Lite0, recipe: Recipe) -> None:
        """Copy the teacher's blocks; the teacher itself is left as it is.

        Raises :class:`SettingsError` if the recipe skips a block without a residual path.
        """
        super().__init__()
        self.recipe = recipe
        modes = len(recipe.widths) * recipe.gains
        stem = _with_widths(teacher.stem, recipe.widths)
        early = list(teacher.typed_blocks())
        if broken := [index for index in recipe.skip if not early[index].residual]:
            raise SettingsError(f"the head cannot skip the blocks {broken}: nothing would lead past them")
        kept = [block for index, block in enumerate(early) if index not in recipe.skip]
        blocks = [_block_with_widths(block, recipe.widths) for block in kept]
        sort_channels(stem, blocks)
        self.head = Head(stem, blocks, recipe.latent_channels, recipe.widths)
        self.gains = GainUnit(list(recipe.start_gains) * len(recipe.widths), recipe.latent_channels)
        self.prior = FactorizedPrior(modes, recipe.latent_channels)
        features = blocks[-1].project.conv.out_channels
        self.decoder = Decoder(recipe.latent_channels, features, modes)
        self.tails = nn.ModuleList(copy.deepcopy(tail) for tail in teacher.tails)
        doublings = sum(layer.stride == 2 for layer in (stem, *(block.depthwise for block in blocks)))
        wanted = RECONSTRUCT.name in recipe.tasks
        self.picture = Reconstructor(features, stem.conv.in_channels, doublings) if wanted else None
        """The tail of ``reconstruct``, where the recipe has that task."""
        classes, side = next(teacher.typed_tails()).classify.out_features, recipe.side >> doublings
        exits = recipe.exit_epochs > 0
        self.exit = ExitNet(recipe.latent_channels, side, classes, recipe.widths) if exits else None
        """The local exit of the first task, where the recipe has one."""
        group_of = torch.bucketize(torch.arange(recipe.latent_channels), torch.tensor(recipe.group_ends), right=True)
        self.group_of: torch.Tensor
        self.register_buffer("group_of", group_of, persistent=False)

    @torch.no_grad()
    def start_from(self, features: torch.Tensor) -> None:
        """Start bottleneck and decoder as the principal components of the teacher's features [B, F, H, W] at the cut.

        Components come in order of their variance, which is the order of importance that cut frames and narrow modes
        need; each is scaled to unit variance, so that the start gains mean the same on every data set.
        """
        F = features.shape[1]
        rows = features.permute(1, 0, 2, 3).reshape(F, -1).double()
        mean = rows.mean(dim=1)
        values, vectors = torch.linalg.eigh((rows - mean[:, None]) @ (rows - mean[:, None]).T / rows.shape[1])
        C = self.recipe.latent_channels
        spread = values.flip(0)[:C].clamp_min(1e-9).sqrt()
        basis = vectors.flip(1)[:, :C]  # [F, C]
        bottleneck, direct = self.head.bottleneck, self.decoder.direct
        bottleneck.weight.zero_()
        bottleneck.weight[:, :, 1, 1] = (basis / spread).T.float()
        assert bottleneck.bias is not None
        bottleneck.bias.copy_(-(basis / spread).T @ mean)
        direct.weight[:, :, 0, 0] = (basis * spread).float()
        assert direct.bias is not None
        direct.bias.copy_(mean)
        self.decoder.leave.weight.zero_()
        assert self.decoder.leave.bias is not None
        self.decoder.leave.bias.zero_()

    def typed_tails(self) -> Iterator[Tail]:
        """The tails, typed."""
        for tail in self.tails:
            assert isinstance(tail, Tail)
            yield tail

    def sample_modes(self, width: float, count: int, generator: torch.Generator) -> torch.Tensor:
        """Random mode indices [count] of a width."""
        first = self.recipe.widths.index(width) * self.recipe.gains
        return first + torch.randint(0, self.recipe.gains, (count,), generator=generator)

    def sample_groups(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Random numbers of channel groups [count]: all, but for a share of cut frames."""
        return random_groups(self.recipe, count, generator)

    def code(self, images: torch.Tensor, width: float, mode: torch.Tensor, groups: torch.Tensor) -> Coded:
        """Run the head on pixels [B, C_in, H_in, W_in] and quantise; ``mode`` [B] must be of that width."""
        scaled = self.gains.scale(self.head(normalise(images), width), mode)
        kept = self.group_of[None, :] < groups[:, None]
        bits = (self.prior.bits(scaled, mode) * kept).sum(dim=1)
        latent = self.gains.unscale(round_straight_through(scaled), mode)
        return Coded(latent * kept[:, :, None, None], bits)


def random_groups(recipe: Recipe, count: int, generator: torch.Generator) -> torch.Tensor:
    """Random numbers of channel groups [count]: all, but for a share of cut frames."""
    cut = torch.rand(count, generator=generator) < recipe.drop_groups
    return torch.where(cut, torch.randint(1, recipe.groups + 1, (count,), generator=generator), recipe.groups)


def _with_widths(layer: ConvNorm, widths: Sequence[float]) -> ConvNorm:
    made = ConvNorm(
        layer.conv.in_channels,
        layer.conv.out_channels,
        layer.conv.kernel_size[0],
        stride=layer.stride,
        depthwise=layer.depthwise,
        activation=layer.activation,
        widths=widths,
    )
    made.conv.load_state_dict(layer.conv.state_dict())
    for width in widths:
        made.norm(width).load_state_dict(layer.norm(1.0).state_dict())
    return made


def _block_with_widths(block: InvertedResidual, widths: Sequence[float]) -> InvertedResidual:
    made = copy.deepcopy(block)
    made.expand = _with_widths(block.expand, widths) if block.expand is not None else None
    made.depthwise = _with_widths(block.depthwise, widths)
    made.project = _with_widths(block.project, widths)
    return made
