"""Scaled activation pruning: backward keeps the largest values of a layer's input, as a bit mask and values.

Forward is dense and exact. Backward needs a convolution's input for one thing, the gradient of its weight, and there
small values count for little: only the largest ``keep`` of them by magnitude are saved (FedMef, Huang et al., CVPR
2024; the gradient of the input, which goes on to earlier layers, is exact). What makes one threshold serve a layer is
that its input is scaled: FedMef standardises weights, here the frozen norm of the layer before has done it.

    saved for a layer, bytes an element of its input:     1/8  bit mask: which are kept
                                                       + 2 keep  their values, float16
    and an element of its output, where it has a ReLU:    1/8  whether the gradient passes
    dense training saves 4 bytes an element of the input; with torch's own ReLU6, in place or not, 8

Zeros that a ReLU made are never kept: where they are many, a small ``keep`` costs nothing. The gates of the ReLU are
exact. Norm and ReLU run with the convolution in one function, so that nothing but the above is saved: the norm's
scale is multiplied into the weight, which gives its gradient without the activations.

Legend: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

_SAMPLE = 16384
"""Values that a threshold is taken from: its share is right within a percent."""
_BLOCK = 1 << 16
"""Elements that are packed at a time: they stay in the cache. A multiple of 8."""
_AT_ONCE = 1 << 19
"""Elements of a layer's input or output that are worked on at a time."""
_ZERO = torch.zeros(1)
_FINITE = torch.finfo(torch.float16).max


@dataclass(frozen=True)
class Kept:
    """What is left of an activation."""

    bits: torch.Tensor
    """uint8 [ceil(n / 8)], which of the n elements are kept, in the order of memory."""
    values: torch.Tensor
    """float16, the kept ones in that order."""
    shape: torch.Size
    channels_last: bool

    @property
    def size(self) -> int:
        """Bytes."""
        return self.bits.nbytes + self.values.nbytes


def pack(x: torch.Tensor, keep: float) -> Kept:
    """Keep the largest ``keep`` of the magnitudes of x [B, C, H, W], and no zeros."""
    last = _channels_last(x)
    flat = _flat(x.detach(), channels_last=last)
    least, values = threshold(flat, keep), flat.numpy()
    bits, kept = np.empty(-(-flat.numel() // 8), np.uint8), np.empty(flat.numel(), np.float16)  # what is used is taken
    count = 0
    for start in range(0, flat.numel(), _BLOCK):
        block = values[start : start + _BLOCK]
        chosen = (block > least) | (block < -least)
        bits[start // 8 : (start + _BLOCK) // 8] = np.packbits(chosen)
        some = torch.from_numpy(block.take(np.flatnonzero(chosen))).clamp_(-_FINITE, _FINITE).half().numpy()
        kept[count : count + len(some)] = some
        count += len(some)
    kept.resize(count, refcheck=False)
    return Kept(torch.from_numpy(bits), torch.from_numpy(kept), x.shape, last)


def unpack(kept: Kept) -> torch.Tensor:
    """The activation, float32, 0 where nothing was kept; laid out in memory as it was."""
    flat, _ = _unpacked_values(kept.bits, kept.values, kept.shape.numel())
    return _shaped(flat, kept.shape, channels_last=kept.channels_last)


def _unpacked_values(bits: torch.Tensor, values: torch.Tensor, count: int) -> tuple[torch.Tensor, int]:
    """``count`` elements in the order of memory, float32, and how many of the values they took."""
    flat, packed, done = np.empty(count, np.float32), bits.numpy(), 0
    for start in range(0, count, _BLOCK):
        block = flat[start : start + _BLOCK]
        chosen = np.unpackbits(packed[start // 8 : (start + _BLOCK) // 8], count=len(block))
        place = np.cumsum(chosen, dtype=np.int32)  # of each element among this block's kept ones, from 1
        kept = int(place[-1])
        some = torch.cat([_ZERO, values[done : done + kept].float()]).numpy()
        some.take(place * chosen, out=block, mode="clip")
        done += kept
    return torch.from_numpy(flat), done


def threshold(flat: torch.Tensor, keep: float) -> float:
    """The magnitude that a share of ``keep`` of the values [n] is above, from a sample that is always the same."""
    n = flat.numel()
    if keep >= 1:
        return 0.0
    if n > _SAMPLE:
        flat = flat[torch.randint(n, (_SAMPLE,), generator=torch.Generator().manual_seed(n))]
    rank = max(1, round((1 - keep) * flat.numel()))
    return float(flat.abs().kthvalue(rank).values)


def pruned_conv(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    *,
    keep: float,
    stride: int = 1,
    groups: int = 1,
    ceiling: float | None = None,
) -> torch.Tensor:
    """Convolve x [B, C, H, W] with padding of half the kernel, add the bias [O] and clip to 0 .. ``ceiling``, if any.

    A ceiling of 6 makes a ReLU6, an infinite one a ReLU. The result and the gradients of ``x`` and ``bias`` are exact;
    that of ``weight`` is what the kept values give.
    """
    y: torch.Tensor = _PrunedConv.apply(x, weight, bias, stride, groups, ceiling, keep)  # type: ignore[no-untyped-call]
    return y


class _PrunedConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own context takes any attribute
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        stride: int,
        groups: int,
        ceiling: float | None,
        keep: float,
    ) -> torch.Tensor:
        y = _convolved(x, weight, bias, stride, groups)
        if ceiling is not None:
            y.clamp_(0, ceiling)
        kept = pack(x, keep) if ctx.needs_input_grad[1] else Kept(_NONE, _NONE, x.shape, channels_last=False)
        ctx.save_for_backward(weight, kept.bits, kept.values, _NONE if ceiling is None else _gates(y, ceiling))
        ctx.kept = kept.shape, kept.channels_last
        ctx.how = stride, groups
        return y

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401 - as above
        weight, bits, values, gates = ctx.saved_tensors
        (stride, groups), (shape, channels_last) = ctx.how, ctx.kept
        how = [stride] * 2, [weight.shape[-1] // 2] * 2, [1, 1], False, [0, 0], groups
        wants_input, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        layout = torch.channels_last if channels_last else torch.contiguous_format
        input_gradient = torch.empty(shape, memory_format=layout) if wants_input else None
        weight_gradient = torch.zeros_like(weight) if wants_weight else None
        bias_gradient = gradient.new_zeros(len(weight)) if wants_bias else None
        # A few images at a time: nothing but the gradients is there for the whole batch.
        each, step = shape[1:].numel(), _images_at_once(shape, gradient.shape)
        for start in range(0, shape[0], step):
            some = _gated(gradient[start : start + step], gates, start)
            part = torch.Size((len(some), *shape[1:]))
            if weight_gradient is not None:
                flat, used = _unpacked_values(bits[start * each // 8 :], values, part.numel())
                values = values[used:]
                x = _shaped(flat, part, channels_last=channels_last)
                weight_gradient += _back(some, x, weight, None, *how, [False, True, False])[1]
                del flat, x
            if input_gradient is not None:
                anything = some.new_empty(1).expand(part)  # its values are not read
                input_gradient[start : start + step] = _back(some, anything, weight, None, *how, [True, False, False])[
                    0
                ]
            if bias_gradient is not None:
                bias_gradient += some.sum(dim=(0, 2, 3))
        return input_gradient, weight_gradient, bias_gradient, None, None, None, None


def _convolved(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, stride: int, groups: int) -> torch.Tensor:
    """The convolution, a few images at a time: kernels lay out copies of what goes in and out as suits them."""
    outputs = len(weight) * x[0, 0].numel() // stride**2
    step, padding = max(1, _AT_ONCE // max(x[0].numel(), outputs)), weight.shape[-1] // 2
    parts = (functional.conv2d(some, weight, bias, stride, padding, groups=groups) for some in x.split(step))
    if step >= len(x):
        return next(parts)
    done, y = 0, torch.empty(0)
    for part in parts:
        if not done:
            layout = torch.channels_last if _channels_last(part) else torch.contiguous_format
            y = torch.empty((len(x), *part.shape[1:]), dtype=x.dtype, memory_format=layout)
        y[done : done + len(part)] = part
        done += len(part)
    return y


def _images_at_once(inputs: torch.Size, outputs: torch.Size) -> int:
    """How many images backward takes at a time: all, where an image's bits do not fill bytes."""
    sizes = inputs[1:].numel(), outputs[1:].numel()
    return inputs[0] if any(size % 8 for size in sizes) else max(1, _AT_ONCE // max(sizes))


_back = torch.ops.aten.convolution_backward
_NONE = torch.empty(0, dtype=torch.uint8)


def _gates(y: torch.Tensor, ceiling: float) -> torch.Tensor:
    """Where the gradient passes a ReLU of this ceiling with output y: uint8, a bit each after a byte for the layout."""
    last = _channels_last(y)
    flat = _flat(y, channels_last=last).numpy()
    bits = np.empty(1 + -(-len(flat) // 8), np.uint8)
    bits[0] = last
    for start in range(0, len(flat), _BLOCK):
        block = flat[start : start + _BLOCK]
        bits[1 + start // 8 : 1 + (start + _BLOCK) // 8] = np.packbits((block > 0) & (block < ceiling))
    return torch.from_numpy(bits)


def _gated(gradient: torch.Tensor, gates: torch.Tensor, start: int) -> torch.Tensor:
    """The gradient of images from ``start`` on, where it passes; all of it where there are no gates."""
    if not gates.numel():
        return gradient
    each = gradient.shape[1:].numel()
    passes = _unpacked(gates[1 + start * each // 8 :], gradient.numel())
    return gradient * _shaped(passes, gradient.shape, channels_last=bool(gates[0]))


def _channels_last(x: torch.Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _flat(x: torch.Tensor, *, channels_last: bool) -> torch.Tensor:
    return (x.permute(0, 2, 3, 1) if channels_last else x).reshape(-1)


def _shaped(flat: torch.Tensor, shape: torch.Size, *, channels_last: bool) -> torch.Tensor:
    if not channels_last:
        return flat.view(shape)
    B, C, H, W = shape
    return flat.view(B, H, W, C).permute(0, 3, 1, 2)


def _unpacked(bits: torch.Tensor, count: int) -> torch.Tensor:
    return torch.from_numpy(np.unpackbits(bits.numpy(), count=count).view(np.bool_))
