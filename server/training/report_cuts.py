"""What a cut frame is worth: bytes against accuracy, a line a mode, for ``report.html``.

Shown are the modes with the finest gain of each width: their frames are the longest, so they are the ones that a slow
link or a loaded server cuts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.server.charts import Chart, section, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.compression.manifest import Manifest, Mode

NOTE = (
    "Each line is a mode: the whole frame at its right end, and what is left of its accuracy when only the first "
    "channel groups arrive. Bytes are those of the cut frame, header included."
)


def cuts_section(manifest: Manifest, task: str) -> str:
    """A chart and a table of the cuts of some modes; nothing where none was measured."""
    modes = chosen(manifest, task)
    if not modes:
        return ""
    chart = Chart("bytes a frame, header included", "accuracy", log_x=True, percent_y=True)
    for mode in modes:
        sizes, accuracies = zip(*points(mode, task), strict=True)
        chart.line(f"width {mode.width:g}, gain {mode.gain}", sizes, accuracies)
    drawn = chart.svg(f"accuracy of {task} over bytes of cut frames, a line for each mode")
    return section(f"Cut frames: {task}", drawn, _table(modes, task), note=NOTE)


def chosen(manifest: Manifest, task: str) -> list[Mode]:
    """Of each width the mode with the finest gain, where its cuts were measured for this task."""
    finest = [max((m for m in manifest.modes if m.width == width), key=lambda m: m.gain) for width in manifest.widths]
    return [mode for mode in finest if mode.cuts and all(task in cut.accuracy for cut in mode.cuts)]


def points(mode: Mode, task: str) -> list[tuple[float, float]]:
    """Bytes and accuracy of every cut of a mode, the whole frame last."""
    cuts = [(cut.mean_bytes, cut.accuracy[task]) for cut in mode.cuts]
    return [*cuts, (mode.mean_bytes, mode.accuracy[task])]


def _table(modes: Sequence[Mode], task: str) -> str:
    groups = [str(cut.groups) for cut in modes[0].cuts]
    head = ["mode", "width", "gain", *(f"groups: {count}" for count in groups), "all"]
    rows = [[f"{mode.index}", f"{mode.width:g}", f"{mode.gain}", *_cells(mode, task)] for mode in modes]
    return table(head, rows)


def _cells(mode: Mode, task: str) -> list[str]:
    return [f"{accuracy:.1%} at {size:.0f} B" for size, accuracy in points(mode, task)]
