"""What a loss weighs against what, as the bundle's own training did: read from its manifest, with the same defaults.

A round goes on where that training stopped, so that what was balanced there (bits against right answers above all)
stays balanced; only the data are others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from headwater.compression.errors import BundleError
from headwater.compression.learning.augmentation import Augmentation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwater.compression.manifest import Manifest


@dataclass(frozen=True)
class Terms:
    """Weights of the loss and what is done to images; the names are those of the recipe."""

    rate_weights: tuple[float, ...] = ()
    """Price of one bit, for each gain; empty: bits are free."""
    task_weight: float = 0.5
    distill_temperature: float = 2.0
    exit_weight: float = 0.5
    drop_groups: float = 0.2
    augmentation: Augmentation = field(default_factory=Augmentation)
    train_labels: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Images of each class that the bundle was trained on, by task; a task that is missing counts as balanced."""

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """Those of a bundle; raises :class:`BundleError` if its recipe is none of `headwater train`."""
        recipe: Mapping[str, Any] = manifest.recipe
        try:
            plain = {name: float(recipe[name]) for name in _NUMBERS if name in recipe}
            counts = {task: tuple(map(int, found)) for task, found in manifest.data.get("train_labels", {}).items()}
            augmentation = Augmentation(**recipe.get("augmentation", {}))
            prices = tuple(map(float, recipe.get("rate_weights", ())))
        except (TypeError, ValueError, AttributeError) as error:
            raise BundleError(f"the recipe of the bundle {manifest.name} cannot be read: {error}") from error
        if prices and len(prices) * len(manifest.widths) != len(manifest.modes):
            raise BundleError(f"the recipe has {len(prices)} rate weights for {len(manifest.modes)} modes")
        return cls(rate_weights=prices, augmentation=augmentation, train_labels=counts, **plain)


_NUMBERS = ("task_weight", "distill_temperature", "exit_weight", "drop_groups")
