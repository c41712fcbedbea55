"""A bundle's model card: what it is for, what it was made from, and how well it does, in Markdown."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headwater.compression.manifest import Manifest
    from headwater.server.training.build import Built
    from headwater.server.training.pipeline import Prepared


def model_card(built: Built, prepared: Prepared) -> str:
    """Write the card of a finished bundle."""
    manifest = built.bundle.manifest
    recipe = manifest.recipe
    return f"""# Model card: {manifest.name}

{_origin(manifest, prepared)}. Answers about one image:
{_tasks(manifest)}

## Data

{manifest.data["name"]}: {manifest.data["train_images"]} images learnt from, {manifest.data["test_images"]} held out
(split by seed {recipe["seed"]}). Licence of the data: **{manifest.data["licence"]}**. The weights come from it and
from EfficientNet-Lite0's ImageNet weights; mind both licences before you use them.

## Recipe

Input {manifest.input.mode} {manifest.input.width}x{manifest.input.height}; head = the first {recipe["cut"]} blocks of
EfficientNet-Lite0, fine-tuned as teacher for {recipe["teacher_epochs"]} epochs, then {recipe["match_epochs"]} epochs of
feature matching and {recipe["tune_epochs"]} of distillation, task and rate end to end. All settings are in
`manifest.json` under `recipe`.

## Figures

On the {manifest.data["test_images"]} held-out images; one standard error of an accuracy near 85 % is
{_standard_error(manifest.data["test_images"]):.1f} points. Bytes are whole frames on a stream, header included.
The unsplit teacher: {_scores(manifest.measured["local"][manifest.tasks[0].name])}.

{_exit(manifest)}{_table(manifest)}
{_pictures(manifest)}"""


def _standard_error(images: int) -> float:
    """Of an accuracy of 85 %, in points."""
    return float(100 * (0.85 * 0.15 / max(1, images)) ** 0.5)


def _origin(manifest: Manifest, prepared: Prepared) -> str:
    if manifest.parent is None:
        return f"Made by `headwater train {prepared.source}` on {manifest.created}"
    return (
        f"Made on {manifest.created} by adding `{manifest.tasks[-1].name}` to the bundle {manifest.parent[:10]} with\n"
        f"`headwater train {prepared.source} --add-task {manifest.tasks[-1].name}`: head, prior and decoder are that\n"
        f"bundle's, so it also answers frames of {', '.join(each[:10] for each in manifest.answers_for)}"
    )


def _tasks(manifest: Manifest) -> str:
    return "\n".join(
        f"- `{task.name}`: {', '.join(task.labels) or 'a picture for people to look at'}" for task in manifest.tasks
    )


def _scores(scores: dict[str, float]) -> str:
    return f"accuracy {scores['accuracy']:.1%}, balanced {scores['balanced_accuracy']:.1%}, AUROC {scores['auroc']:.3f}"


def _exit(manifest: Manifest) -> str:
    if manifest.exit is None:
        return ""
    cascades = manifest.measured["local_exit"]["cascades"]
    rows = [row for row in cascades if (row["max_drop"], row["score"]) == (1.0, "softmax")]
    here, lost = ([row[key] for row in rows] for key in ("share", "drop"))
    return (
        f"A device with `--max-drop 1` answers {min(here):.0%} to {max(here):.0%} of the frames itself, by width\n"
        f"(`{manifest.exit.task}`), and is at most {max(lost):.1f} points behind always sending: each\n"
        "tenth of these images is measured with a calibration on the other nine.\n\n"
    )


def _pictures(manifest: Manifest) -> str:
    tasks = manifest.modes[0].psnr_db
    if not tasks:
        return ""
    rows = ["", "| width | gain | bytes | task | PSNR dB |", "|---|---|---|---|---|"]
    for mode in manifest.modes:
        for task, psnr_db in mode.psnr_db.items():
            rows.append(f"| {mode.width:g} | {mode.gain} | {mode.mean_bytes:.0f} | {task} | {psnr_db:.1f} |")
    return "\n".join(rows) + "\n"


def _table(manifest: Manifest) -> str:
    rows = [
        "| width | gain | bytes | task | accuracy | balanced | AUROC | head MMAC |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for mode in manifest.modes:
        for task, accuracy in mode.accuracy.items():
            balanced, auroc = mode.balanced_accuracy[task], mode.auroc.get(task, math.nan)
            rows.append(
                f"| {mode.width:g} | {mode.gain} | {mode.mean_bytes:.0f} | {task} "
                f"| {accuracy:.1%} | {balanced:.1%} | {auroc:.3f} | {mode.head_macs / 1e6:.1f} |"
            )
    return "\n".join(rows)
