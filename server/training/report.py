"""``report.html`` of a training run: rate against accuracy, training curves, every mode, the confusion of the best."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwater.server.charts import Chart, cards, page, section, table
from headwater.server.training.metrics import confusion
from headwater.server.training.report_cuts import cuts_section
from headwater.server.training.report_exit import exit_section
from headwater.server.training.report_pictures import STYLE as PICTURES_STYLE
from headwater.server.training.report_pictures import picture_sections

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from headwater.compression.manifest import Manifest
    from headwater.server.training.build import Built
    from headwater.server.training.pipeline import Prepared

History = list[dict[str, Any]]


def write_report(built: Built, history: History, prepared: Prepared, path: Path) -> None:
    """Write one self-contained HTML file."""
    manifest = built.bundle.manifest
    task = manifest.tasks[0].name
    parts = [
        cards(_headlines(manifest, task)),
        *(section(f"Bytes and accuracy: {name}", _rate_accuracy(manifest, name)) for name in _classified(manifest)),
        *picture_sections(built, prepared.test.images.numpy()),
        *(cuts_section(manifest, name) for name in _classified(manifest)),
        exit_section(manifest),
        section("Training", *_curves(history), note="Means over the training images of each epoch."),
        section(
            "Every mode", _modes(manifest), note="Measured on the held-out images with the shipped graphs and frames."
        ),
        *(section(f"Confusion: {name}", _confusion(built, prepared, name)) for name in built.runs[0].logits),
    ]
    lead = (
        f"Trained by headwater on {manifest.created}: {manifest.data['train_images']} images to learn from, "
        f"{manifest.data['test_images']} held out. Data licence: {manifest.data['licence']}."
    )
    path.write_text(page(f"Training report: {manifest.name}", parts, lead, PICTURES_STYLE), encoding="utf-8")


def _headlines(manifest: Manifest, task: str) -> list[tuple[str, str]]:
    smallest = min(manifest.modes, key=lambda mode: mode.mean_bytes)
    best = max(manifest.modes, key=lambda mode: mode.accuracy[task])
    largest = max(mode.mean_bytes for mode in manifest.modes)
    return [
        (f"{manifest.measured['local'][task]['accuracy']:.1%}", "unsplit model"),
        (f"{best.accuracy[task]:.1%} at {best.mean_bytes:.0f} B", "best mode"),
        (f"{smallest.accuracy[task]:.1%} at {smallest.mean_bytes:.0f} B", "smallest mode"),
        (f"{largest / smallest.mean_bytes:.1f} x", "span of bytes"),
    ]


def _rate_accuracy(manifest: Manifest, task: str) -> str:
    chart = Chart("bytes a frame, header included", "accuracy", log_x=True, percent_y=True)
    for width in manifest.widths:
        modes = [mode for mode in manifest.modes if mode.width == width]
        chart.line(f"width {width:g}", [mode.mean_bytes for mode in modes], [mode.accuracy[task] for mode in modes])
    if task in manifest.measured["local"]:
        sizes = [mode.mean_bytes for mode in manifest.modes]
        level = manifest.measured["local"][task]["accuracy"]
        chart.line("unsplit model", [min(sizes), max(sizes)], [level, level])
    return chart.svg(f"accuracy of {task} over bytes a frame, a line for each width")


def _classified(manifest: Manifest) -> list[str]:
    return [task.name for task in manifest.tasks if task.labels]


def _curves(history: History) -> list[str]:
    figures = []
    for stage in dict.fromkeys(entry["stage"] for entry in history):
        entries = [entry for entry in history if entry["stage"] == stage]
        losses = [key for key in entries[0] if key not in {"stage", "epoch", "bytes"}]
        epochs = [entry["epoch"] for entry in entries]
        chart = Chart("epoch", f"{stage}: loss")
        for key in losses:
            chart.line(key, epochs, [entry[key] for entry in entries])
        figures.append(chart.svg(f"losses of stage {stage} by epoch"))
        if "bytes" in entries[0]:
            rate = Chart("epoch", f"{stage}: bytes").line(
                "bytes a frame", epochs, [entry["bytes"] for entry in entries]
            )
            figures.append(rate.svg(f"estimated bytes of stage {stage} by epoch"))
    return figures


def _modes(manifest: Manifest) -> str:
    names = _classified(manifest)
    head = [
        "mode",
        "width",
        "gain",
        "bytes",
        "p95 bytes",
        "head MMAC",
        *(f"{n} {m}" for n in names for m in ("acc.", "bal.", "AUROC")),
        *(f"{n} PSNR dB" for n in manifest.modes[0].psnr_db),
    ]
    return table(head, [_mode_row(manifest, index, names) for index in range(len(manifest.modes))])


def _mode_row(manifest: Manifest, index: int, names: Sequence[str]) -> list[str]:
    mode = manifest.modes[index]
    row = [
        str(index),
        f"{mode.width:g}",
        str(mode.gain),
        f"{mode.mean_bytes:.1f}",
        f"{mode.p95_bytes:.0f}",
        f"{mode.head_macs / 1e6:.1f}",
    ]
    for name in names:
        row += [f"{mode.accuracy[name]:.1%}", f"{mode.balanced_accuracy[name]:.1%}", _rank_figure(mode.auroc.get(name))]
    return row + [f"{psnr_db:.1f}" for psnr_db in mode.psnr_db.values()]


def _rank_figure(auroc: float | None) -> str:
    return "-" if auroc is None else f"{auroc:.3f}"


def _confusion(built: Built, prepared: Prepared, task: str) -> str:
    manifest = built.bundle.manifest
    best = max(manifest.modes, key=lambda mode: mode.accuracy[task])
    counts = confusion(built.runs[best.index].logits[task], prepared.test.labels[task].numpy())
    names = manifest.tasks[[each.name for each in manifest.tasks].index(task)].labels
    rows = [[name, *(str(count) for count in row)] for name, row in zip(names, counts, strict=True)]
    return table([f"true (mode {best.index})", *(f"answered {name}" for name in names)], rows)
