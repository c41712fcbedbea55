"""Slimmable convolutions: one weight set that runs at several widths.

At width w a layer uses the leading channels of its full weight, ``weight[:out, :in]``, and a batch norm of its own,
since the statistics of a prefix of the channels differ from those of all of them (Yu et al., "Slimmable Neural
Networks", ICLR 2019). The width is an argument of ``forward``, never a global. For export the norm is folded into the
convolution, so that a deployed graph holds plain convolutions.

Legend: B batch, C channels, H height, W width of the feature map; the *width* of a network is the share of its
channels that is used.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import nn
from torch.nn import functional

from headwater.compression.learning.activation_pruning import pruned_conv

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CHANNEL_MULTIPLE = (
    8  # the vector length of a convolution kernel on CPUs: other counts cost as much as the next multiple
)

Activation = Literal["relu", "relu6"]
CEILINGS: dict[Activation, float] = {"relu": math.inf, "relu6": 6.0}
"""The most that each lets through."""

SHUT = 1e-3
"""A channel that the widest norm scales to less than this share of the mean keeps its weights: other widths use it."""


def channels_at(full: int, width: float) -> int:
    """Number of channels that a layer of ``full`` channels uses at a width: the nearest multiple of 8, at least 8."""
    if width >= 1.0:
        return full
    return min(full, max(CHANNEL_MULTIPLE, round(full * width / CHANNEL_MULTIPLE) * CHANNEL_MULTIPLE))


class Affine(nn.Module):
    """What a norm does once its statistics are fixed: a scale and a shift for each channel that its width uses.

    Both can be trained; there are no statistics that a batch could change, so a batch of one is as good as any.
    """

    def __init__(self, channels: int, *, scale: bool = True) -> None:
        """Change nothing at first; without ``scale`` there is only a shift."""
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels)) if scale else None
        self.shift = nn.Parameter(torch.zeros(channels))

    @classmethod
    def of(cls, scale: torch.Tensor | None, shift: torch.Tensor) -> Self:
        """One of these values, which are copied."""
        made = cls(len(shift), scale=scale is not None)
        made.load_state_dict({"shift": shift} if scale is None else {"scale": scale, "shift": shift})
        return made


class ConvNorm(nn.Module):
    """Convolution and norm, mostly followed by a ReLU of one kind, that can be run on a prefix of its channels.

    The norm is a batch norm, or an :class:`Affine` in a layer that is :meth:`frozen`, which is folded into the weights
    whenever the layer runs: backward then needs nothing but the layer's input.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        depthwise: bool = False,
        activation: Activation | None = "relu6",
        widths: Sequence[float] = (1.0,),
    ) -> None:
        """Make a layer with a norm for each of ``widths``; ``depthwise`` needs ``inputs == outputs``."""
        super().__init__()
        self.stride = stride
        self.depthwise = depthwise
        self.activation = activation
        self.widths = tuple(widths)
        self.keep = 1.0
        """Share of its input that a frozen layer keeps for backward; see :mod:`.learning.activation_pruning`."""
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride, kernel // 2, groups=inputs if depthwise else 1, bias=False
        )
        self.norms = nn.ModuleDict({norm_key(width): nn.BatchNorm2d(outputs, eps=1e-3) for width in widths})

    @property
    def ceiling(self) -> float | None:
        """The most that its activation lets through; None without one."""
        return None if self.activation is None else CEILINGS[self.activation]

    def norm(self, width: float) -> nn.BatchNorm2d:
        """The batch norm of a width; it has the full number of channels, of which a prefix is used."""
        norm = self.norms[norm_key(width)]
        assert isinstance(norm, nn.BatchNorm2d)
        return norm

    def forward(self, x: torch.Tensor, outputs: int | None = None, width: float = 1.0) -> torch.Tensor:
        """Map [B, C_in, H, W] to [B, outputs, H / stride, W / stride]; ``outputs`` defaults to all channels."""
        inputs = x.shape[1]
        outputs = self.conv.out_channels if outputs is None else outputs
        weight = self.conv.weight[:outputs] if self.depthwise else self.conv.weight[:outputs, :inputs]
        if outputs < self.conv.out_channels or inputs < self.conv.in_channels:
            # A slice is strided; packed again, channels last, it runs two to three times faster on a CPU.
            weight = weight.contiguous(memory_format=torch.channels_last)
        weight = _reaching_taps(weight, max(x.shape[2:])) if self.depthwise else weight
        norm, bias = self.norms[norm_key(width)], None
        if isinstance(norm, Affine):
            weight = weight if norm.scale is None else weight * norm.scale[:, None, None, None]
            bias = norm.shift
            if self.keep < 1:
                keep = self.keep if x.requires_grad else 1.0  # an image is small: all of it is kept
                groups = inputs if self.depthwise else 1
                return pruned_conv(x, weight, bias, keep=keep, stride=self.stride, groups=groups, ceiling=self.ceiling)
        if self.depthwise and weight.shape[-1] == 1:
            x = x * weight.view(1, outputs, 1, 1)
            x = x if bias is None else x + bias.view(1, outputs, 1, 1)
        else:
            padding = weight.shape[-1] // 2
            x = functional.conv2d(x, weight, bias, self.stride, padding, groups=inputs if self.depthwise else 1)
        if isinstance(norm, nn.BatchNorm2d):
            x = self._normalise(x, norm, outputs)
            return x if self.activation is None else _TRAINED[self.activation](x)
        return x if self.ceiling is None else _rectified(x, self.ceiling)

    @staticmethod
    def _normalise(x: torch.Tensor, norm: nn.BatchNorm2d, channels: int) -> torch.Tensor:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, variance = norm.running_mean[:channels], norm.running_var[:channels]
        momentum = norm.momentum if norm.momentum is not None else 0.1
        return functional.batch_norm(
            x, mean, variance, norm.weight[:channels], norm.bias[:channels], norm.training, momentum, norm.eps
        )

    @torch.no_grad()
    def folded(self, inputs: int, outputs: int, width: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight [outputs, inputs or 1, k, k] and bias [outputs] of the convolution with the norm folded in."""
        scale, shift = (factor[:outputs] for factor in self.norm_factors(width))
        weight = self.conv.weight[:outputs] if self.depthwise else self.conv.weight[:outputs, :inputs]
        return weight * scale[:, None, None, None], shift

    @torch.no_grad()
    def norm_factors(self, width: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        """What the norm of a width does once it is trained: a scale and a shift of each channel, [C] each."""
        norm = self.norms[norm_key(width)]
        if isinstance(norm, Affine):
            scale = torch.ones_like(norm.shift) if norm.scale is None else norm.scale
            return scale.detach(), norm.shift.detach()
        norm = self.norm(width)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        return scale, norm.bias - norm.running_mean * scale

    def set_norms(self, norms: Mapping[float, Affine]) -> None:
        """Replace the norms by these, of each width."""
        self.widths = tuple(norms)
        self.norms = nn.ModuleDict({norm_key(width): norm for width, norm in norms.items()})

    @torch.no_grad()
    def frozen(self, *, slim: bool = False) -> ConvNorm:
        """A copy that computes what this one does when it is not training, with an :class:`Affine` for each norm.

        The widest norm's scale goes into the weights, so that steps of one size suit all layers; the others keep what
        they differ by. With ``slim`` the outputs get fewer with the width, else all widths have all of them.
        """
        factors = {width: self.norm_factors(width) for width in self.widths}
        C = self.conv.out_channels
        base = factors[max(self.widths)][0].clone()
        if len(factors) > 1:
            base[base.abs() < SHUT * base.abs().mean()] = 1.0
        made = ConvNorm(
            self.conv.in_channels,
            C,
            self.conv.kernel_size[0],
            stride=self.stride,
            depthwise=self.depthwise,
            activation=self.activation,
            widths=(),
        )
        made.conv.weight.copy_(self.conv.weight * base[:, None, None, None])
        norms = {}
        for width, (scale, shift) in factors.items():
            channels = channels_at(C, width) if slim else C
            ratio = scale[:channels] / base[:channels] if len(factors) > 1 else None
            norms[width] = Affine.of(ratio, shift[:channels])
        made.set_norms(norms)
        return made


_TRAINED = {"relu": functional.relu, "relu6": functional.relu6}


class _Rectified(torch.autograd.Function):
    """ReLU up to a ceiling, in place: backward needs the result alone; torch's own ReLU6 keeps what came in as well."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, ceiling: float) -> torch.Tensor:  # noqa: ANN401 - torch gives it no type
        ctx.mark_dirty(x)
        y = x.clamp_(0, ceiling)
        ctx.save_for_backward(y)
        ctx.ceiling = ceiling
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:  # noqa: ANN401 - as above
        (y,) = ctx.saved_tensors
        return gradients[0] * ((y > 0) & (y < ctx.ceiling)), None


def _rectified(x: torch.Tensor, ceiling: float) -> torch.Tensor:
    result: torch.Tensor = _Rectified.apply(x, ceiling)  # type: ignore[no-untyped-call]  # torch gives it no types
    return result


def _reaching_taps(weight: torch.Tensor, side: int) -> torch.Tensor:
    """The middle of a kernel [C, 1, k, k] that touches anything but padding on a map of this side.

    On the small maps of small images most taps of a depthwise filter meet padding only, and training spends most of its
    time on them.
    """
    kernel = weight.shape[-1]
    reaching = min(kernel, 2 * side - 1)
    cut = (kernel - reaching) // 2
    return weight[:, :, cut : kernel - cut, cut : kernel - cut] if cut else weight


def norm_key(width: float) -> str:
    """The name of a width's norm among a layer's norms: a module's may not hold a dot."""
    return f"{width:g}".replace(".", "_")


class InvertedResidual(nn.Module):
    """Expand, filter by depth, project: the block of MobileNetV2 and EfficientNet-Lite, without squeeze-and-excitation.

    Only the expansion is slimmed; input and output keep all channels, so that every width works on the same features
    (elastic width as in Cai et al., "Once-for-All", ICLR 2020).
    """

    def __init__(self, expand: ConvNorm | None, depthwise: ConvNorm, project: ConvNorm) -> None:
        """Make a block of its layers; without expansion the filter runs on whatever prefix of inputs arrives."""
        super().__init__()
        self.expand, self.depthwise, self.project = expand, depthwise, project

    @classmethod
    def make(
        cls, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, widths: Sequence[float] = (1.0,)
    ) -> Self:
        """A block of new layers with a norm for each of ``widths``, its filter ``expansion`` times as wide as it is."""
        hidden = inputs * expansion
        return cls(
            ConvNorm(inputs, hidden, 1, widths=widths) if expansion > 1 else None,
            ConvNorm(hidden, hidden, kernel, stride=stride, depthwise=True, widths=widths),
            ConvNorm(hidden, outputs, 1, activation=None, widths=widths),
        )

    @property
    def hidden(self) -> int:
        """Channels of the expansion at the full width."""
        return self.depthwise.conv.out_channels

    @property
    def residual(self) -> bool:
        """Whether the input is added to the result: never without an expansion, where a prefix of it arrives."""
        if self.expand is None:
            return False
        return self.depthwise.stride == 1 and self.expand.conv.in_channels == self.project.conv.out_channels

    def hidden_at(self, width: float) -> int:
        """Channels of the expansion at a width."""
        return channels_at(self.hidden, width)

    def frozen(self) -> InvertedResidual:
        """A copy of frozen layers, see :meth:`ConvNorm.frozen`."""
        expand = self.expand.frozen(slim=True) if self.expand is not None else None
        return InvertedResidual(expand, self.depthwise.frozen(slim=True), self.project.frozen())

    def forward(self, x: torch.Tensor, width: float = 1.0) -> torch.Tensor:
        """Map [B, C_in, H, W] to [B, C_out, H / stride, W / stride]."""
        y = x
        if self.expand is not None:
            y = self.expand(y, self.hidden_at(width), width)
        y = self.depthwise(y, y.shape[1], width)
        y = self.project(y, None, width)
        return x + y if self.residual else y
