"""Everything that decides what a training run gives, in one frozen dataclass; it is written into the bundle."""

from __future__ import annotations

import ast
import dataclasses
import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from headwater.compression.errors import SettingsError
from headwater.compression.learning.augmentation import Augmentation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_AUGMENTATION = Augmentation()


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of one run. The defaults are for photographs of a few thousand examples."""

    colour: Literal["L", "RGB"] = "RGB"
    side: int = 128
    """Height and width of the input in pixels; a multiple of 32."""
    tasks: tuple[str, ...] = ()
    """Tasks to train; empty = the data set's first."""
    cut: int = 6
    """The head ends after this many of the network's sixteen blocks; 6 to 8 leave a latent of side / 16."""
    skip: tuple[int, ...] = (2,)
    """Blocks before the cut that the head does without, counted from 0; each must have a residual path."""
    latent_channels: int = 24
    groups: int = 4
    """Channel groups of a frame, each about twice the size of the one before it: channels come in the order of their
    importance, and the first few hold the most."""
    widths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    start_gains: tuple[float, ...] = (0.6, 1.2, 2.4, 5.0, 10.0)
    """Gain of each quantisation step when training starts; they are learnt."""
    rate_weights: tuple[float, ...] = (3e-3, 1.2e-3, 5e-4, 1.8e-4, 5e-5)
    """Price of one bit in the loss, for each gain; the first gives the fewest bytes."""
    teacher_epochs: int = 16
    match_epochs: int = 8
    """Stage 1: head and decoder learn the teacher's features at the cut."""
    tune_epochs: int = 24
    """Stage 2: everything, by task, distillation and rate."""
    task_epochs: int = 20
    """Of the tail of a task that is added to a finished bundle."""
    exit_epochs: int = 16
    """Of the local exit, by far the shortest stage; 0 makes a bundle without one."""
    batch: int = 32
    teacher_rate: float = 6e-4
    match_rate: float = 2e-3
    tune_rate: float = 6e-4
    tail_rate: float = 2e-4
    exit_rate: float = 2e-3
    picture_rate: float = 2e-3
    weight_decay: float = 1e-2
    task_weight: float = 0.5
    distill_weight: float = 1.0
    distill_temperature: float = 2.0
    feature_weight: float = 0.5
    exit_weight: float = 0.5
    """Of the local exit's answers in stages 1 and 2, which lead the head to what tells the classes apart."""
    picture_weight: float = 0.5
    """Of the error of ``reconstruct``, where it is trained along with the others."""
    drop_groups: float = 0.2
    """Share of training frames that are cut after a random channel group."""
    mix: float = 0.5
    """Share of the images of stage 2 with a rectangle of another pasted in, for which the teacher alone knows."""
    label_smoothing: float = 0.05
    class_weights: Literal["auto", "balanced", "none"] = "auto"
    """``auto`` weighs classes when the largest has over three times the images of the smallest."""
    test_share: float = 0.25
    validation_share: float = 0.0
    """If above 0, this share of the training images is held out and measured on in place of the test images: settings
    are chosen by it, so that the test images stay unseen."""
    seed: int = 0
    augmentation: Augmentation = _AUGMENTATION

    def __post_init__(self) -> None:
        """Cross-check; raises :class:`SettingsError`."""
        if self.side % 32 or self.side < 32:
            raise SettingsError(f"the input side is {self.side}; it must be a multiple of 32, at least 32")
        if len(self.start_gains) != len(self.rate_weights):
            raise SettingsError(
                f"there are {len(self.start_gains)} start gains and {len(self.rate_weights)} rate weights; "
                "give as many of each"
            )
        ascending = list(self.widths) == sorted(set(self.widths))
        if not (self.widths and ascending and self.widths[0] > 0 and self.widths[-1] <= 1):
            raise SettingsError(f"the widths are {self.widths}; give them ascending, each above 0 and at most 1")
        if len(self.widths) * len(self.start_gains) > 64:
            raise SettingsError(f"{len(self.widths)} widths and {len(self.start_gains)} gains make over 64 modes")
        if not 1 <= self.groups <= self.latent_channels:
            raise SettingsError(
                f"{self.groups} groups of {self.latent_channels} channels; want 1 to the number of channels"
            )
        if not 1 <= self.cut <= 15:
            raise SettingsError(f"the cut is after block {self.cut}; want 1 to 15")
        if outside := [block for block in self.skip if not 0 <= block < self.cut]:
            raise SettingsError(f"blocks {outside} are to be skipped; those before the cut are 0 to {self.cut - 1}")

    @property
    def gains(self) -> int:
        """Number of gains a width."""
        return len(self.start_gains)

    @property
    def group_ends(self) -> tuple[int, ...]:
        """Cumulative channel counts of the groups, the last one all channels."""
        C, G = self.latent_channels, self.groups
        ends = [0]
        for g in range(G):
            doubling = round(C * (2 ** (g + 1) - 1) / (2**G - 1))
            ends.append(min(max(doubling, ends[-1] + 1), C - (G - 1 - g)))  # a channel at least for each
        return tuple(ends[1:])

    def changed(self, settings: Iterable[str]) -> Recipe:
        """The recipe with settings given as ``name=value``, the value as in Python or JSON.

        Raises :class:`SettingsError` for an unknown name, with the nearest one, and a value of another type.
        """
        changes: dict[str, Any] = {}
        for setting in settings:
            name, _, text = setting.partition("=")
            if name not in _SETTABLE:
                near = difflib.get_close_matches(name, _SETTABLE, 1, 0)[0]
                raise SettingsError(f"the recipe has no setting {name!r}; did you mean {near!r}?")
            changes[name] = _value(name, text, getattr(self, name))
        return dataclasses.replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Recipe:
        """Read what :meth:`to_json` wrote; what a later version has added is as by default.

        Raises :class:`SettingsError` for what this version does not know.
        """
        if not plain:
            raise SettingsError("it names no recipe; only `headwater train` makes bundles that do")
        if unknown := sorted(set(plain) - {field.name for field in dataclasses.fields(cls)}):
            raise SettingsError(f"its recipe has settings that this version does not know: {', '.join(unknown)}")
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()
        }
        values["augmentation"] = Augmentation(**plain.get("augmentation", {}))
        return cls(**values)


_SETTABLE = tuple(field.name for field in dataclasses.fields(Recipe) if field.name != "augmentation")


def _value(name: str, text: str, now: object) -> object:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    if isinstance(now, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(now, tuple) and isinstance(value, list):
        value = tuple(value)
    if type(value) is not type(now):
        raise SettingsError(f"the recipe's {name} is {text!r}; want {type(now).__name__}, such as {now!r}")
    return value


SOLAR = Recipe(
    colour="L",
    teacher_epochs=14,
    match_epochs=12,
    tune_epochs=24,
    batch=48,
    augmentation=Augmentation(flip_vertical=True),
)
DIGITS = Recipe(
    colour="L",
    side=32,
    cut=4,
    skip=(),
    latent_channels=8,
    teacher_epochs=3,
    match_epochs=2,
    tune_epochs=2,
    task_epochs=6,
    exit_epochs=4,
    batch=64,
    teacher_rate=2e-3,
    augmentation=Augmentation(flip_horizontal=False, rotate_degrees=8.0, shift=0.08, scale=0.1),
)
RECIPES: Mapping[str, Recipe] = {"solar": SOLAR, "digits": DIGITS}


def recipe_for(data: str) -> Recipe:
    """The recipe that a named data set ships with; the defaults for a folder."""
    return RECIPES.get(data, Recipe())
