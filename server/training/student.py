"""The student: slimmable head, gains, prior, decoder and the teacher's own later blocks as tails.

Built from a fine-tuned teacher. Every step of training runs every width, each on its share of the batch (so that, as
in the sandwich rule of Yu and Huang, "Universally Slimmable Networks", ICCV 2019, widest and narrowest always pull
together, at the price of one pass of the tail), each sample at a random gain and some of them cut after a random
channel group, so that every mode and every cut is seen.

Legend: B batch, C latent channels, H height, W width, M modes.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from headwater.compression.decoder import Decoder
from headwater.compression.encoder import Head, sort_channels
from headwater.compression.entropy import FactorizedPrior, GainUnit
from headwater.compression.errors import SettingsError
from headwater.compression.learning.exit_net import ExitNet
from headwater.compression.learning.network import Parts, SplitNetwork
from headwater.compression.slimmable import Activation, ConvNorm, InvertedResidual
from headwater.server.training.reconstruct import RECONSTRUCT, Reconstructor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.server.training.lite import Lite0
    from headwater.server.training.recipe import Recipe


class Student(SplitNetwork):
    """The split network as it is learnt from a teacher, its norms with statistics."""

    def __init__(self, teacher: Lite0, recipe: Recipe) -> None:
        """Copy the teacher's blocks; the teacher itself is left as it is.

        Raises :class:`SettingsError` if the recipe skips a block without a residual path.
        """
        modes, C = len(recipe.widths) * recipe.gains, recipe.latent_channels
        stem, blocks = _early(teacher, recipe)
        doublings = sum(layer.stride == 2 for layer in (stem, *(block.depthwise for block in blocks)))
        features = blocks[-1].project.conv.out_channels
        head = Head(stem, blocks, C, recipe.widths)
        gains, prior = GainUnit(list(recipe.start_gains) * len(recipe.widths), C), FactorizedPrior(modes, C)
        decoder = Decoder(C, features, modes)
        tails = [copy.deepcopy(tail) for tail in teacher.typed_tails()]
        wanted = RECONSTRUCT.name in recipe.tasks
        picture = Reconstructor(features, stem.conv.in_channels, doublings) if wanted else None
        classes, side = tails[0].classify.out_features, recipe.side >> doublings
        local = ExitNet.make(C, side, classes, recipe.widths) if recipe.exit_epochs > 0 else None
        super().__init__(Parts(head, gains, prior, decoder, tails, local, recipe.group_ends))
        self.recipe = recipe
        self.picture = picture
        """The tail of ``reconstruct``, where the recipe has that task."""

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


def _early(teacher: Lite0, recipe: Recipe) -> tuple[ConvNorm, list[InvertedResidual]]:
    """The teacher's stem and first blocks, sorted by importance, with a norm for each width.

    Expansions, the largest maps of a head, have a ReLU where the teacher has a ReLU6: onnxruntime's convolutions
    rectify what they write as they write it, but clip it in a second pass. Stem and filters keep their ceiling. On one
    split of the solar cells, over all modes, that is 0.2 points better than ReLU6 everywhere (standard error 0.4), and
    ReLU everywhere is 0.6 points worse (0.5).
    """
    early = list(teacher.typed_blocks())
    if broken := [index for index in recipe.skip if not early[index].residual]:
        raise SettingsError(f"the head cannot skip the blocks {broken}: nothing would lead past them")
    stem = _with_widths(teacher.stem, recipe.widths, teacher.stem.activation)
    kept = [block for index, block in enumerate(early) if index not in recipe.skip]
    blocks = [_block_with_widths(block, recipe.widths) for block in kept]
    sort_channels(stem, blocks)
    return stem, blocks


def _with_widths(layer: ConvNorm, widths: Sequence[float], activation: Activation | None) -> ConvNorm:
    """A copy with this activation and a norm for each width, all as the layer's own."""
    made = ConvNorm(
        layer.conv.in_channels,
        layer.conv.out_channels,
        layer.conv.kernel_size[0],
        stride=layer.stride,
        depthwise=layer.depthwise,
        activation=activation,
        widths=widths,
    )
    made.conv.load_state_dict(layer.conv.state_dict())
    for width in widths:
        made.norm(width).load_state_dict(layer.norm(1.0).state_dict())
    return made


def _block_with_widths(block: InvertedResidual, widths: Sequence[float]) -> InvertedResidual:
    made = copy.deepcopy(block)
    made.expand = _with_widths(block.expand, widths, "relu") if block.expand is not None else None
    made.depthwise = _with_widths(block.depthwise, widths, block.depthwise.activation)
    made.project = _with_widths(block.project, widths, block.project.activation)
    return made
