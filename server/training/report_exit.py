"""The training report's section on the local exit: what a stated loss of accuracy saves, measured on unseen images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwater.server.charts import section, table

if TYPE_CHECKING:
    from headwater.compression.manifest import Manifest

_NOTE = (
    "A confident frame is answered on the device, and nothing of it is sent. Beside each width's most accurate mode; "
    "each image is judged by a temperature and a threshold that were set without it, on the other nine tenths. "
    "Points are of accuracy, against always sending; the standard error is that of the loss."
)


def exit_section(manifest: Manifest) -> str:
    """The section; empty for a bundle without exit."""
    if manifest.exit is None:
        return ""
    figures = manifest.measured["local_exit"]
    title = f"Answered on the device: {manifest.exit.task}"
    return section(title, _cascades(figures), _classifier(manifest, figures), note=_NOTE)


def _cascades(figures: dict[str, Any]) -> str:
    head = ["width", "mode", "score", "may lose", "answered here", "bytes saved", "lost", "std. error"]
    rows = [
        [
            f"{row['width']:g}",
            str(row["mode"]),
            row["score"],
            f"{row['max_drop']:g} points",
            f"{row['share']:.1%}",
            f"{row['bytes_saved']:.1%}",
            f"{row['drop']:.2f}",
            f"{row['drop_error']:.2f}",
        ]
        for row in figures["cascades"]
    ]
    return table(head, rows)


def _classifier(manifest: Manifest, figures: dict[str, Any]) -> str:
    """The exit by itself, a row a width."""
    assert manifest.exit is not None
    head = ["width", "exit alone", "best mode", "calibration error", "with temperature", "exit MMAC", "head MMAC"]
    rows = []
    for index, width in enumerate(manifest.widths):
        modes = [mode for mode in manifest.modes if mode.width == width]
        before, after = (errors[index] for errors in figures["calibration_error"])
        rows.append(
            [
                f"{width:g}",
                f"{figures['accuracy'][index]:.1%}",
                f"{max(mode.accuracy[manifest.exit.task] for mode in modes):.1%}",
                f"{before:.1%}",
                f"{after:.1%}",
                f"{manifest.exit.macs / 1e6:.2f}",
                f"{modes[0].head_macs / 1e6:.1f}",
            ]
        )
    return table(head, rows)
