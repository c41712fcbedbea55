"""A class of device: how long it takes for a frame, what it draws, and how sure that is; a file in TOML.

    name = "pi-4b"
    title = "Raspberry Pi 4 Model B"
    cores = 4
    memory_mb = 2048
    note = "..."

    [head_ms_per_mmac]        # of one core, for a million multiply-adds; or, where it was measured, by width:
    low = 0.105
    mid = 0.218
    high = 0.312
    source = "ncnn, benchmark/README.md: ..."

    [head_ms."0.25"]          # of the bundle that `bundle` names by its short id
    ...

`headwater device profile --out FILE` measures the machine that it runs on and writes such a file, with ``like`` for the
class that has what it could not measure; the simulation of fleets has some ready ones and reads any other. Times are of
one busy core, in ms; powers in W.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING

from headwater.compression.errors import SettingsError
from headwater.device.figure import Figure

if TYPE_CHECKING:
    from headwater.compression.manifest import Mode

_NUMBERS = ("low", "mid", "high")


@dataclass(frozen=True)
class Hardware:
    """What one kind of device is like; :class:`SettingsError` for a figure without a source."""

    name: str
    """As scenarios call it."""
    title: str
    cores: int
    memory_mb: int
    """That the board has."""
    prepare_ms: Figure
    """From the camera's JPEG to what the head takes: decoding and scaling."""
    exit_ms: Figure
    code_ms: Figure
    """Quantising, entropy coding, framing."""
    agent_mb: Figure
    """Memory of the agent, all widths loaded."""
    idle_w: Figure
    """Of the whole board, on and doing nothing."""
    core_w: Figure
    """What one busy core adds to that."""
    sleep_w: Figure
    """Suspended or halted, as deep as the board can and still wake by a timer."""
    busy_factor: Figure
    """How many times as long everything takes while other work wants the processor."""
    head_ms_per_mmac: Figure | None = None
    """Of a million multiply-adds of a head; None where it was measured by width."""
    head_ms: Mapping[float, Figure] = field(default_factory=dict)
    """By width, measured with one bundle."""
    bundle: str = ""
    """Short id of that bundle."""
    whole_ms: Figure | None = None
    """The whole model of that bundle; None where it was not measured."""
    note: str = ""

    def __post_init__(self) -> None:
        """Check that the head's time is known, and what counts."""
        if self.head_ms_per_mmac is None and not self.head_ms:
            raise SettingsError(f"{self.name}: neither head_ms_per_mmac nor head_ms is given; give one of them.")
        if self.cores < 1 or self.memory_mb < 1:
            raise SettingsError(f"{self.name}: cores and memory_mb must be at least 1.")
        for key, figure in self._figures():
            if not figure.source.strip():
                raise SettingsError(f"{self.name}: {key} has no source; say whether it is measured, cited or derived.")
        object.__setattr__(self, "head_ms", MappingProxyType(dict(self.head_ms)))

    def heads(self, modes: Iterable[Mode]) -> dict[float, Figure]:
        """The head's ms by width, of a bundle with these modes; :class:`SettingsError` for a width never measured."""
        macs = {mode.width: mode.head_macs for mode in modes}
        if self.head_ms_per_mmac is not None:
            return {width: self.head_ms_per_mmac * (count / 1e6) for width, count in macs.items()}
        if missing := sorted(set(macs) - set(self.head_ms)):
            widths = ", ".join(f"{width:g}" for width in missing)
            raise SettingsError(
                f"{self.name}: head_ms says nothing of width {widths}; measure the class with this bundle "
                "(headwater device profile --bundle B --out FILE), or give head_ms_per_mmac."
            )
        return {width: self.head_ms[width] for width in macs}

    def toml(self) -> str:
        """The file's text; reading it gives what wrote it, to six digits."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        top = {key: value for key, value in plain.items() if isinstance(value, str | int) and value != ""}
        return to_toml(top, dict(self._figures()))

    def _figures(self) -> list[tuple[str, Figure]]:
        """Every figure with its key in the file."""
        plain = [(each.name, getattr(self, each.name)) for each in fields(self)]
        by_width = [(head_key(width), figure) for width, figure in self.head_ms.items()]
        return [(key, value) for key, value in plain if isinstance(value, Figure)] + by_width


def head_key(width: float) -> str:
    """How the file calls the time of a width."""
    return f'head_ms."{width:g}"'


def to_toml(top: Mapping[str, str | int], figures: Mapping[str, Figure]) -> str:
    """The text of a file, or of a part of one that another completes."""
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in top.items()]
    return "\n".join([*lines, *(_table(key, figure) for key, figure in figures.items())]) + "\n"


def _table(key: str, figure: Figure) -> str:
    numbers = "\n".join(f"{part} = {getattr(figure, part):.6g}" for part in _NUMBERS)
    return f"\n[{key}]\n{numbers}\nsource = {json.dumps(figure.source, ensure_ascii=False)}"
