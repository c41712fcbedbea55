"""How much training images are changed at random. Without torch: a recipe is read by commands that train nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Augmentation:
    """Random changes to training images that leave the label true."""

    flip_horizontal: bool = True
    flip_vertical: bool = False
    shift: float = 0.04
    """Largest shift, as a share of the side."""
    scale: float = 0.06
    """Largest change of size, as a share."""
    rotate_degrees: float = 4.0
    brightness: float = 0.1
    """Largest change of brightness and of contrast, as a share."""

    @property
    def mirroring(self) -> Augmentation:
        """The same with mirroring alone: pictures keep their place, size and light."""
        return replace(self, shift=0.0, scale=0.0, rotate_degrees=0.0, brightness=0.0)
