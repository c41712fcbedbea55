"""What is trained and scored in the study: the whole of it, and a tiny one that only shows that every piece runs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headwater.server.training.recipe import SOLAR, Recipe
from headwater.simulations.codecs import Setting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwater.simulations.codecs import Name

CODECS: tuple[Name, ...] = ("JPEG", "WebP", "AVIF")
PEER_SETTINGS = (
    *("colour", "side", "tasks", "cut", "test_share", "validation_share", "augmentation", "mix", "batch"),
    *("teacher_epochs", "teacher_rate", "tune_rate", "tail_rate", "weight_decay"),
    *("task_weight", "distill_weight", "distill_temperature", "label_smoothing", "class_weights"),
)


@dataclass(frozen=True)
class Plan:
    """Every setting that decides a figure."""

    source: str = "solar"
    recipe: Recipe = SOLAR
    seeds: tuple[int, ...] = (0, 1, 2)
    """Splits of the headline: ours against image codecs."""
    narrow_seeds: tuple[int, ...] = (0,)
    """Splits of the other comparisons."""
    scales: tuple[float, ...] = (1.0, 0.75, 0.5, 0.375, 0.25)
    """Sides of a codec's pictures, as shares of the network's: 128, 96, 64, 48, 32."""
    qualities: Mapping[Name, tuple[int, ...]] = field(
        default_factory=lambda: {
            "JPEG": (5, 10, 20, 30, 50, 75, 90),
            "WebP": (1, 10, 25, 50, 75, 90),
            "AVIF": (10, 20, 30, 40, 50, 60, 75, 90),
        }
    )
    """AVIF's scale is another: its 60 looks like WebP's 75."""
    tuned_scales: Mapping[Name, tuple[float, ...]] = field(
        default_factory=lambda: {"JPEG": (1.0, 0.5), "WebP": (1.0, 0.75, 0.5, 0.25), "AVIF": (1.0, 0.75, 0.5, 0.25)}
    )
    """Sides that a teacher is tuned for. JPEG takes more bytes than WebP for the same picture at every size."""
    tuned_everywhere: tuple[Name, ...] = ("AVIF",)
    """Codecs that it is tuned for on all splits of the headline, the best on the first; the others on narrow ones."""
    tuned_epochs: int = 6
    tuned_rate: float = 2e-4
    betas: tuple[float, ...] = (0.32, 0.08, 1.28)
    """Entropic Student's price of a bit, one model each; from the middle out, as that is the order of the runs."""
    entropic_epochs: tuple[int, int] = (16, 10)
    """Its two stages, in sum as long as ours. The paper has (10, 10), on 650 times as many images."""
    added_task: str = "cell_type"
    cuts: tuple[int, ...] = (3, 5, 6, 8)
    """Blocks of the network before the split, each trained so."""
    cut_epochs: tuple[int, int] = (6, 12)
    """Of the two stages, for each cut: half of ours, as it is the difference that counts."""

    def recipe_of(self, seed: int, **changes: object) -> Recipe:
        """Our recipe on a split."""
        return dataclasses.replace(self.recipe, seed=seed, **changes)  # type: ignore[arg-type]

    def peer_recipe(self, seed: int) -> Recipe:
        """What of our recipe decides teacher and peers; all else as it is by default, so that it makes none stale."""
        kept = {name: getattr(self.recipe, name) for name in PEER_SETTINGS}
        return Recipe(**{**kept, "skip": (), "seed": seed})

    def settings(self, codec: Name) -> list[Setting]:
        """Every size and quality of a codec, for the untouched teacher."""
        return [
            Setting(codec, one, one, quality) for one in self._sides(self.scales) for quality in self.qualities[codec]
        ]

    def tuned_codecs(self, seed: int) -> tuple[Name, ...]:
        """Codecs that a teacher is tuned for on a split."""
        return CODECS if seed in self.narrow_seeds else self.tuned_everywhere

    def tuned_sides(self, codec: Name) -> tuple[int, ...]:
        """Sides in pixels that a teacher is tuned for."""
        return self._sides(self.tuned_scales[codec])

    def _sides(self, scales: tuple[float, ...]) -> tuple[int, ...]:
        return tuple(round(self.recipe.side * scale) for scale in scales)


FULL = Plan()
TINY = Plan(
    # A test share of 97 % leaves 79 images to learn from, of which the validation share takes 32 to measure on.
    recipe=dataclasses.replace(
        SOLAR,
        side=32,
        batch=24,
        widths=(0.25, 1.0),
        start_gains=(1.0, 4.0),
        rate_weights=(1e-3, 1e-4),
        teacher_epochs=1,
        match_epochs=1,
        tune_epochs=1,
        exit_epochs=1,
        task_epochs=1,
        test_share=0.97,
        validation_share=0.4,
    ),
    seeds=(0, 1),
    scales=(1.0, 0.5),
    tuned_scales={"JPEG": (0.5,), "WebP": (1.0, 0.5), "AVIF": (0.5,)},
    qualities={"JPEG": (20, 60), "WebP": (20, 60), "AVIF": (60,)},
    tuned_epochs=1,
    betas=(0.32,),
    entropic_epochs=(1, 1),
    cuts=(3,),
    cut_epochs=(1, 1),
)
