"""The split network, both of its parts in one module, as it is trained: on a server from a teacher, in rounds by all.

    pixels -> head (a width) -> times gain, rounded -> [bits by the prior] -> times step -> decoder -> a tail a task
                                                                                   `-> the local exit

In rounds its norms are *frozen* (:meth:`SplitNetwork.frozen`): a scale and a shift for each channel and width, trained
like any weight. There are no statistics of a batch anywhere, so that a batch may be of one image, and devices that see
other light, other cells, other noise have nothing to disagree on but weights, which can be averaged. (What breaks
federated training with batch norms, and networks without them: Zhuang and Lyu, "FedWon", ICLR 2024.)

Legend: B batch, C latent channels, H height, W width, M modes, K classes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from headwater.compression.encoder import Head
from headwater.compression.entropy import FactorizedPrior, GainUnit, round_straight_through
from headwater.compression.learning.samples import normalise
from headwater.compression.learning.tail import Tail

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headwater.compression.decoder import Decoder
    from headwater.compression.learning.exit_net import ExitNet


@dataclass(frozen=True)
class Coded:
    """What a head's output becomes on the way to the tails."""

    latent: torch.Tensor
    """Dequantised, [B, C, H, W]; zero where a group was dropped."""
    bits: torch.Tensor
    """Estimated size of each sample's payload, [B]."""


@dataclass(frozen=True)
class Parts:
    """What a split network is made of."""

    head: Head
    gains: GainUnit
    prior: FactorizedPrior
    decoder: Decoder
    tails: Sequence[Tail]
    """Of the tasks with labels, in the order of the bundle."""
    exit: ExitNet | None
    """The local exit, which answers the first task."""
    group_ends: tuple[int, ...]
    """Cumulative channel counts of a frame's groups."""
    tasks: tuple[str, ...] = ()
    """Names of the tails' tasks, where they are known."""


class SplitNetwork(nn.Module):
    """All that a bundle holds, trainable."""

    def __init__(self, parts: Parts) -> None:
        """Take the parts (they are not copied)."""
        super().__init__()
        self.head, self.gains, self.prior, self.decoder = parts.head, parts.gains, parts.prior, parts.decoder
        self.tails = nn.ModuleList(parts.tails)
        self.exit = parts.exit
        self.group_ends, self.tasks = parts.group_ends, parts.tasks
        channels = torch.arange(parts.head.latent_channels)
        self.group_of: torch.Tensor
        self.register_buffer(
            "group_of", torch.bucketize(channels, torch.tensor(parts.group_ends), right=True), persistent=False
        )

    @property
    def widths(self) -> tuple[float, ...]:
        """The widths, ascending."""
        return self.head.widths

    @property
    def modes(self) -> int:
        """M: every width with every gain, sorted by width and then by gain."""
        return len(self.gains.log_gain)

    @property
    def steps(self) -> int:
        """Gains a width."""
        return self.modes // len(self.widths)

    def typed_tails(self) -> Iterator[Tail]:
        """The tails, typed."""
        for tail in self.tails:
            assert isinstance(tail, Tail)
            yield tail

    def mode(self, width: float, gain: int) -> int:
        """Index of a mode; ``gain`` counts from the coarsest, or from the finest if it is negative."""
        return self.widths.index(width) * self.steps + gain % self.steps

    def sample_modes(self, width: float, count: int, generator: torch.Generator) -> torch.Tensor:
        """Random mode indices [count] of a width."""
        return self.mode(width, 0) + torch.randint(0, self.steps, (count,), generator=generator)

    def sample_groups(self, count: int, cut: float, generator: torch.Generator) -> torch.Tensor:
        """Random numbers of channel groups [count]: all, but for a share ``cut`` of the frames."""
        return random_groups(len(self.group_ends), count, cut, generator)

    def code(
        self,
        images: torch.Tensor,
        width: float,
        mode: torch.Tensor,
        groups: torch.Tensor,
        generator: torch.Generator | None = None,
    ) -> Coded:
        """Run the head on pixels [B, C_in, H_in, W_in] and quantise; ``mode`` [B] must be of that width.

        The prior's noise is drawn from ``generator``, or from torch's own.
        """
        scaled = self.gains.scale(self.head(normalise(images), width), mode)
        kept = self.group_of[None, :] < groups[:, None]
        bits = (self.prior.bits(scaled, mode, generator) * kept).sum(dim=1)
        latent = self.gains.unscale(round_straight_through(scaled), mode)
        return Coded(latent * kept[:, :, None, None], bits)

    def forward(self, images: torch.Tensor, width: float, gain: int) -> list[torch.Tensor]:
        """Logits [B, K] of every task to pixels [B, C_in, H_in, W_in] that are sent whole, at a width and a gain."""
        mode = torch.full((len(images),), self.mode(width, gain))
        scaled = self.gains.scale(self.head(normalise(images), width), mode)
        features = self.decoder(self.gains.unscale(scaled.round(), mode), mode)
        return [tail(features) for tail in self.typed_tails()]

    def beside(self) -> SplitNetwork:
        """What codes, copied, as it is now: head, gains and prior; decoder and tails are those of this network."""
        front = copy.deepcopy((self.head, self.gains, self.prior))
        return SplitNetwork(Parts(*front, self.decoder, list(self.typed_tails()), None, self.group_ends, self.tasks))

    def frozen(self) -> SplitNetwork:
        """A copy that computes the same when it is not training, its norms without statistics."""
        parts = Parts(
            self.head.frozen(),
            copy.deepcopy(self.gains),
            copy.deepcopy(self.prior),
            copy.deepcopy(self.decoder),
            [tail.frozen() for tail in self.typed_tails()],
            None if self.exit is None else self.exit.frozen(),
            self.group_ends,
            self.tasks,
        )
        return SplitNetwork(parts)


def random_groups(groups: int, count: int, cut: float, generator: torch.Generator) -> torch.Tensor:
    """Random numbers of channel groups [count]: all ``groups``, but for a share ``cut`` of the frames."""
    fewer = torch.rand(count, generator=generator) < cut
    return torch.where(fewer, torch.randint(1, groups + 1, (count,), generator=generator), groups)
