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
    from headwater.server.federation.pruning.soft_masks import Kept, StructuredSettings

TRIES = 8
"""How often a whole network is measured, as it takes longer or less than its layers do one by one."""
MARGIN = 0.97
"""Of the time that was asked for, what is aimed at: measured again, the same network takes a little more or less. One
that takes more, but no more than was asked for, is taken only where none of the others does."""
CLOSE = 0.95
"""Of what is aimed at: a network that takes less has lost more than it need have."""


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

    @property
    def shares(self) -> dict[str, float]:
        """Of the widest head and each tail, by the names that an allotment has for them."""
        return {"head": self.head, **{f"tails.{number}": share for number, share in enumerate(self.tails)}}


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
    """Remove the channels that are not chosen, so many that the whole network is as quick as its settings say.

    Layers are chosen by their own times, so the first choice misses: where the network is too slow fewer channels stay,
    where it is quicker than was asked for, more, and the largest that is quick enough is taken.

    Args:
        network: as it was before rounds.
        arrays: what rounds have made of it, with the factors of the soft masks in them.
        masks: after the last round.
        spec: of the images.

    Raises:
        LearningError: it cannot be made that quick.
    """
    load(network, masks.cleared(arrays))
    settings, allotment = masks.settings, masks.allotment
    targets = {part: settings.target_latency if part == "head" else settings.target_tail for part in allotment.parts}
    wanted = {part: MARGIN * target for part, target in targets.items()}
    searches = {part: _Search() for part in wanted}
    best, rank = None, (False, 0.0)
    for left in reversed(range(TRIES)):
        factors = {part: search.next(last=not left) for part, search in searches.items()}
        found = _carved(network, allotment.scaled(factors).kept(masks.scores), spec)
        filling = {part: share / wanted[part] for part, share in found.shares.items()}
        here = max(filling.values()) <= 1, sum(filling.values())
        if max(filling.values()) <= 1 / MARGIN and here > rank:
            best, rank = found, here
        if best is found and min(filling.values()) >= CLOSE:
            break
        for part, search in searches.items():
            search.tell(filling[part])
    if best is not None:
        return best
    slow = ", ".join(
        f"{part} takes {share:.2f} of its time" for part, share in found.shares.items() if filling[part] > 1 / MARGIN
    )
    raise LearningError(
        f"after {TRIES} tries {slow}; ask for more time, or measure on a machine with nothing else to do"
    )


class _Search:
    """For the factor on a part's time in the knapsack with which it takes the time that was asked for."""

    def __init__(self) -> None:
        self._factor, self._fits, self._slow, self._filling = 1.0, 0.0, math.inf, 1.0

    def tell(self, filling: float) -> None:
        """What came of the last factor, as a share of the time that was asked for."""
        self._filling = filling
        if filling <= 1:
            self._fits = max(self._fits, self._factor)
        else:
            self._slow = min(self._slow, self._factor)

    def next(self, *, last: bool) -> float:
        """The factor to try; the last one is the largest that is known to do, if there is any."""
        if last and self._fits:
            self._factor = self._fits
        elif not CLOSE <= self._filling <= 1:
            between = self._fits and self._slow < math.inf
            self._factor = (self._fits + self._slow) / 2 if between else self._factor * 0.98 / self._filling
        return self._factor


def _carved(network: SplitNetwork, kept: Kept, spec: InputSpec) -> Carved:
    smaller = removed(network, kept)
    before, after = beside([network, smaller], spec)
    return Carved(
        smaller, before, after, {name: (u.channels, len(kept[name])) for name, u in units_of(network).items()}
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
