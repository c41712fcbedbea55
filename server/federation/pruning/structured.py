"""Structured pruning from end to end: fade, remove, learn on, build.

    rounds with soft masks (devices, or the server's own images)  ->  knapsack on measured times  ->  surgery
        ->  layers solved anew, then training, on the server's images, against the network as it was
        ->  bundle (server/rollout/build.py)

Fading may happen on a live fleet (fleet.py), as rounds with
:class:`~headwater.server.federation.pruning.soft_masks.SoftMasks` for a companion; what follows needs the server alone,
without Flower, and what comes out is published like any bundle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from headwater.compression.errors import LearningError
from headwater.compression.learning.arrays import arrays_of, load
from headwater.compression.learning.plan import Plan
from headwater.compression.learning.reading import network_of
from headwater.compression.learning.reconstruction import reconstruct
from headwater.compression.learning.surgery import removed, units_of
from headwater.compression.learning.terms import Terms
from headwater.compression.learning.train import train
from headwater.server.federation.averaging import Contribution
from headwater.server.federation.pruning.latency import Times, beside, curves, measure
from headwater.server.federation.pruning.soft_masks import Allotment, SoftMasks
from headwater.server.federation.pruning.sparse import GATHERED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headwater.compression.bundle import Bundle
    from headwater.compression.image import InputSpec
    from headwater.compression.learning.arrays import Arrays
    from headwater.compression.learning.network import SplitNetwork
    from headwater.compression.learning.samples import Samples
    from headwater.server.federation.pruning.soft_masks import StructuredSettings

TRIES = 5
"""How often the time is measured again with fewer channels, if whole networks take longer than their layers."""


@dataclass(frozen=True)
class Carved:
    """A smaller network, and what it takes beside the one that it came from."""

    network: SplitNetwork
    before: Times
    after: Times
    channels: Mapping[str, tuple[int, int]]
    """Of each unit, before and after."""

    @property
    def head(self) -> float:
        """Time of the widest head, as a share of what it was."""
        width = self.network.widths[-1]
        return self.after.heads[width] / self.before.heads[width]

    @property
    def tails(self) -> tuple[float, ...]:
        """Of each tail."""
        return tuple(after / before for after, before in zip(self.after.tails, self.before.tails, strict=True))


def soft_masks(network: SplitNetwork, spec: InputSpec, settings: StructuredSettings) -> SoftMasks:
    """Measure a network's layers, and begin with all channels there."""
    units = list(units_of(network))
    allotment = Allotment(network, measure(network, spec), curves(network, spec, units), settings)
    return SoftMasks(network, allotment, settings)


def fade(
    network: SplitNetwork, samples: Samples, masks: SoftMasks, plan: Plan, terms: Terms, say: Callable[[str], None]
) -> None:
    """The rounds in which channels fade, on the server's own images: it is its only device."""
    settings = masks.settings
    for number in range(1, settings.rounds + 1):
        trained = train(network, samples, replace(plan, gather=settings.method, seed=plan.seed + number), terms)
        one = Contribution(0, "server", len(samples), {}, {}, gathered={GATHERED: trained.gathered})
        load(network, masks.end(number, [one], arrays_of(network)).arrays)
        say(f"fading {number}/{settings.rounds}: loss {trained.metrics['loss']:.3f}")


def carve(network: SplitNetwork, arrays: Arrays, masks: SoftMasks, spec: InputSpec) -> Carved:
    """Remove the channels that are not chosen, fewer until the whole network is as quick as its settings say.

    Args:
        network: as it was before rounds.
        arrays: what rounds have made of it, with the factors of the soft masks in them.
        masks: after the last round.
        spec: of the images.

    Raises:
        LearningError: it cannot be made that quick.
    """
    load(network, masks.cleared(arrays))
    settings, factors = masks.settings, dict.fromkeys(masks.allotment.parts, 1.0)
    for _ in range(TRIES):
        kept = masks.allotment.tightened(factors).kept(masks.scores)
        smaller = removed(network, kept)
        before, after = beside([network, smaller], spec)
        counts = {name: (unit.channels, len(kept[name])) for name, unit in units_of(network).items()}
        found = Carved(smaller, before, after, counts)
        shares = {"head": found.head, **{f"tails.{n}": share for n, share in enumerate(found.tails)}}
        wanted = {part: settings.target_latency if part == "head" else settings.target_tail for part in shares}
        if all(shares[part] <= wanted[part] for part in shares):
            return found
        factors = {p: f * min(1.0, 0.98 * wanted[p] / shares[p]) for p, f in factors.items()}
    slow = ", ".join(f"{part} takes {share:.2f} of its time" for part, share in shares.items() if share > wanted[part])
    raise LearningError(
        f"after {TRIES} tries {slow}; ask for more time, or measure on a machine with nothing else to do"
    )


def tune(
    network: SplitNetwork,
    teacher: SplitNetwork,
    samples: Samples,
    plan: Plan,
    terms: Terms,
    epochs: int,
    say: Callable[[str], None],
) -> None:
    """Let a carved network learn from the one that it came from, with steps that get smaller."""
    for epoch in range(epochs):
        rate = plan.rate * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        now = replace(plan, rate=rate, seed=plan.seed + 1000 + epoch, gather="")
        trained = train(network, samples, now, terms, teacher=teacher)
        say(f"learning on {epoch + 1}/{epochs}: loss {trained.metrics['loss']:.3f}")


class Pruning:
    """A bundle on its way to a smaller one."""

    def __init__(self, bundle: Bundle, samples: Samples, settings: StructuredSettings, *, rate: float = 5e-4) -> None:
        """Read the bundle's network; nothing is measured yet.

        Args:
            bundle: to begin from.
            samples: the server's images to learn from.
            settings: how much quicker.
            rate: step size of what is learnt on the server.
        """
        self.bundle, self.samples, self.settings = bundle, samples, settings
        self.network = network_of(bundle)
        self.terms = Terms.of(bundle.manifest)
        self.plan = Plan(rate=rate, optimizer="adam")

    def here(self, say: Callable[[str], None]) -> Carved:
        """Fade on the server's own images, and carve."""
        fading, spec = network_of(self.bundle), self.bundle.manifest.input
        masks = soft_masks(fading, spec, self.settings)
        fade(fading, self.samples, masks, self.plan, self.terms, say)
        return carve(network_of(self.bundle), arrays_of(fading), masks, spec)

    def tune(self, carved: Carved, epochs: int, say: Callable[[str], None]) -> None:
        """Make good what surgery has taken, then learn on from the network as it was."""
        reconstruct(carved.network, self.network, self.samples.images)
        tune(carved.network, self.network, self.samples, self.plan, self.terms, epochs, say)
