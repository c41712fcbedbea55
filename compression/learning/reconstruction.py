"""What reads the channels that are left, solved anew, so that a smaller network computes nearly what the whole one did.

Surgery takes channels from a sum that the next layer was made for: each block gives less than before, and after sixteen
of them next to nothing is left of the image. So after it, unit after unit in the order in which they run, the weights
that read a unit's channels are solved by least squares against what its block gave in the whole network (He et al.,
"Channel pruning for accelerating very deep neural networks", ICCV 2017; ThiNet: Luo et al., ICCV 2017): inputs are
those of the smaller network as far as it is solved, so that a block makes good what those before it have lost. It takes
images without labels, and no steps.

Widths share their weights, each with a scale and a shift of its own (s, b). For inputs x_w and wanted outputs y_w of
every width w, all prefixes of the same channels,

    W  =  argmin  sum over w |(y_w - b_w) / s_w - W x_w|^2  +  ridge * |W - W_0|^2      about the means
    s_w, b_w  =  the line through y_w over W x_w, channel by channel

W_0 is what surgery has left; the fewer positions for each channel, the more it counts.

Legend: N positions of all images, C channels that are read, O outputs.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from headwater.compression.learning.surgery import units_of
from headwater.compression.slimmable import Affine, ConvNorm, norm_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headwater.compression.learning.network import SplitNetwork
    from headwater.compression.learning.surgery import Unit

RIDGE = 1.0
"""Weight of what surgery has left, in mean squares of the channels that are read and channels for each position."""
MOST_IMAGES = 128
"""That are looked at."""
AT_ONCE = 16
"""Images that run together."""
MOST_POSITIONS = 1 << 15
"""Of a layer's outputs, at a width; spread over all images."""
_LEAST = 1e-6
"""Of a variance, in mean ones: below it there is no line to draw."""


@torch.no_grad()
def reconstruct(smaller: SplitNetwork, whole: SplitNetwork, images: torch.Tensor, *, ridge: float = RIDGE) -> None:
    """Solve the layers of a network that surgery has left, in place.

    Args:
        smaller: what is left; its norms are frozen.
        whole: what it came from.
        images: like those that it will see, uint8 or float32 [N, C, H, W] as samples have them.
        ridge: how much weights are held to what they are.
    """
    images = images[:: -(-len(images) // MOST_IMAGES)]
    smaller.eval()
    whole.eval()
    olds = units_of(whole)
    for name, unit in units_of(smaller).items():
        if unit.channels == olds[name].channels:
            continue
        pairs = {width: _seen(smaller, unit, whole, olds[name], images, width) for width in _widths(unit, smaller)}
        _solve(unit.reads, pairs, ridge)


def _widths(unit: Unit, network: SplitNetwork) -> tuple[float, ...]:
    """Widths of the network at which a unit is looked at: a tail's, which has one, at the widest."""
    return unit.widths if unit.name.startswith("head") else network.widths[-1:]


@dataclass(frozen=True)
class _Pair:
    """What a layer reads in the smaller network, float64 [N, C], and what it gives in the whole one [N, O]."""

    read: torch.Tensor
    wanted: torch.Tensor


def _seen(
    smaller: SplitNetwork, unit: Unit, whole: SplitNetwork, old: Unit, images: torch.Tensor, width: float
) -> _Pair:
    """Run both at a width and look at the layer."""
    read: list[torch.Tensor] = []
    wanted: list[torch.Tensor] = []
    with _listening(unit.reads, read, before=True), _listening(old.reads, wanted, before=False):
        for some in images.split(AT_ONCE):
            for network in (smaller, whole):
                network(some, width, -1)
    every = -(-sum(_rows(each).shape[0] for each in read) // MOST_POSITIONS)
    return _Pair(*(torch.cat([_rows(each) for each in seen])[::every].double() for seen in (read, wanted)))


def _rows(array: torch.Tensor) -> torch.Tensor:
    """[B, C, H, W] or [B, C] as [positions, C]."""
    return array if array.dim() == 2 else array.permute(0, 2, 3, 1).reshape(-1, array.shape[1])


@contextmanager
def _listening(layer: nn.Module, into: list[torch.Tensor], *, before: bool) -> Iterator[None]:
    """Keep what goes into a layer, or what comes out."""

    def hear(_: nn.Module, read: tuple[Any, ...], gave: torch.Tensor) -> None:
        into.append(read[0] if before else gave)

    handle = layer.register_forward_hook(hear)
    try:
        yield
    finally:
        handle.remove()


# ---------------------------------------------------------------- solving


def _solve(layer: ConvNorm | nn.Linear, pairs: dict[float, _Pair], ridge: float) -> None:
    """Set a layer's weights, then each width's scale and shift."""
    held = layer.conv.weight if isinstance(layer, ConvNorm) else layer.weight
    before = held.reshape(len(held), -1).double()
    weight = _weights(before, [(pair, _scale(layer, width)) for width, pair in pairs.items()], ridge)
    held.copy_(weight.reshape(held.shape))
    for width, pair in pairs.items():
        _draw_line(layer, width, weight, pair)


def _weights(before: torch.Tensor, seen: Sequence[tuple[_Pair, torch.Tensor | None]], ridge: float) -> torch.Tensor:
    """The weights [O, C] nearest to what is wanted at all widths together."""
    C = before.shape[1]
    squares = torch.zeros(C, C, dtype=torch.float64)
    products = torch.zeros(len(before), C, dtype=torch.float64)
    positions = sum(len(pair.read) for pair, _ in seen)
    for pair, scale in seen:
        read, wanted = _about_mean(pair.read), _about_mean(pair.wanted)
        if scale is not None:
            wanted = wanted / _away_from_0(scale)
        count, some = len(read), read.shape[1]
        squares[:some, :some] += read.T @ read / count
        products[:, :some] += wanted.T @ read / count
    pull = ridge * C / positions * squares.diagonal().mean().clamp_min(1e-12) * torch.eye(C, dtype=torch.float64)
    return torch.linalg.solve(squares + pull, (products + before @ pull).T).T


def _draw_line(layer: ConvNorm | nn.Linear, width: float, weight: torch.Tensor, pair: _Pair) -> None:
    """Scale and shift of a width: the line through what is wanted over what the weights give."""
    given = pair.read @ weight[:, : pair.read.shape[1]].T
    middle, wanted = given.mean(dim=0), pair.wanted.mean(dim=0)
    scale = torch.ones_like(middle)
    if isinstance(layer, ConvNorm):
        norm = _norm(layer, width)
        if norm.scale is not None:
            spread, together = _about_mean(given).square().mean(dim=0), (_about_mean(given) * pair.wanted).mean(dim=0)
            known = spread > _LEAST * spread.mean()
            scale = torch.where(known, together / spread.clamp_min(1e-12), norm.scale.double())
            norm.scale.copy_(scale)
        norm.shift.copy_(wanted - scale * middle)
    else:
        layer.bias.copy_(wanted - middle)


def _scale(layer: ConvNorm | nn.Linear, width: float) -> torch.Tensor | None:
    """Of a width's norm, [O]; None where there is none."""
    scale = None if isinstance(layer, nn.Linear) else _norm(layer, width).scale
    return None if scale is None else scale.double()


def _norm(layer: ConvNorm, width: float) -> Affine:
    """Of a layer at a width of the network; a tail's have one for all."""
    norm = layer.norms[norm_key(width if width in layer.widths else layer.widths[-1])]
    assert isinstance(norm, Affine)
    return norm


def _away_from_0(scale: torch.Tensor) -> torch.Tensor:
    least = 1e-2 * scale.abs().mean()
    return torch.where(scale.abs() < least, least, scale)


def _about_mean(rows: torch.Tensor) -> torch.Tensor:
    return rows - rows.mean(dim=0)
