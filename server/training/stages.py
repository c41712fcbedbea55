"""The three stages of training: fine-tune a teacher, match its features, tune everything end to end.

Losses are means over the batch:

    teacher   cross-entropy
    match     relative squared error of the features at the cut + exit      + rate weight * bits
    tune      task + distillation (Hinton et al., 2015) + relative squared
              error of the last feature map, at every width + exit          + rate weight * bits

The exit's share is the task, and in the last stage distillation too, of a small classifier that reads the quantised
latent itself: deep supervision (Lee et al., "Deeply-Supervised Nets", AISTATS 2015), since what is not in the latent no
tail can find again.

Distilling every width from the external teacher, rather than narrow widths from the widest, and end-to-end rate
follow "Supervised Compression for Resource-Constrained Edge Computing Systems" (Matsubara et al., WACV 2022) and
"Slimmable Encoders for Flexible Split DNNs" (Assine et al., 2023).

Legend: B batch, C H W channels, height and width, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from headwater.compression.learning.losses import distillation, relative_error
from headwater.compression.learning.samples import augment, normalise, paste
from headwater.compression.slimmable import ConvNorm
from headwater.server.training.lite import Lite0
from headwater.server.training.loop import Stage
from headwater.server.training.reconstruct import picture_loss
from headwater.server.training.student import Student

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from headwater.compression.learning.exit_net import ExitNet
    from headwater.compression.learning.samples import Samples
    from headwater.server.training.recipe import Recipe


def class_weights(labels: torch.Tensor, classes: int, recipe: Recipe) -> torch.Tensor:
    """Weight of each class in the task's loss, mean 1 over the images: float32 [K]."""
    counts = torch.bincount(labels, minlength=classes).float().clamp_min(1)
    balanced = recipe.class_weights == "balanced" or (
        recipe.class_weights == "auto" and bool(counts.max() > 3 * counts.min())
    )
    return counts.sum() / (classes * counts) if balanced else torch.ones(classes)


def teacher_stage(
    model: Lite0, samples: Samples, recipe: Recipe, weights: Sequence[torch.Tensor], generator: torch.Generator
) -> Stage:
    """Fine-tune the whole network on the tasks."""

    def step(indices: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        images = augment(samples.images[indices], recipe.augmentation, generator)
        loss = _task_loss(model(normalise(images)), samples, indices, recipe, weights)
        return loss, {"task": loss.item()}

    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.teacher_rate, weight_decay=recipe.weight_decay)
    return Stage("teacher", recipe.teacher_epochs, model, optimizer, step)


def match_stage(
    student: Student,
    teacher: Lite0,
    samples: Samples,
    recipe: Recipe,
    weights: Sequence[torch.Tensor],
    generator: torch.Generator,
) -> Stage:
    """Stage 1: head, gains, prior and decoder learn the teacher's features at the cut; cheap, as no tail runs."""
    teacher.eval()

    def step(indices: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        images = augment(samples.images[indices], recipe.augmentation, generator)
        with torch.no_grad():
            wanted = teacher.features(normalise(images))
        latents, modes, bits = _code_widths(student, images, generator)
        features = student.decoder(latents, modes)
        error = relative_error(features, wanted)
        rate = _rate(bits, modes, recipe)
        loss = error.mean() + rate
        figures = {"feature": error.mean().item(), "bytes": bits.mean().item() / 8}
        if student.exit is not None:
            learnt = Learnt(samples, indices, torch.ones(len(indices), dtype=torch.bool))
            share, figures["exit"] = _exit_loss(student.exit, latents, learnt, recipe, weights)
            loss = loss + share
        return loss, figures

    groups = [*_codec_groups(student, recipe.match_rate), *_exit_group(student)]
    optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
    return Stage("match", recipe.match_epochs, student, optimizer, step)


def tune_stage(
    student: Student,
    teacher: Lite0,
    samples: Samples,
    recipe: Recipe,
    weights: Sequence[torch.Tensor],
    generator: torch.Generator,
) -> Stage:
    """Stage 2: everything learns the tasks, the teacher's answers and its last feature map, at a price for each bit.

    The teacher answers for images with pasted rectangles too, whose label nobody knows: a student learns a function,
    not the few images, where it is shown that it agrees with the teacher on much else (Beyer et al., "Knowledge
    distillation: a good teacher is patient and consistent", CVPR 2022).
    """
    teacher.eval()

    def step(indices: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        images = augment(samples.images[indices], recipe.augmentation, generator)
        images, whole = paste(images, recipe.mix, generator)
        with torch.no_grad():
            wanted = intermediates(teacher, normalise(images))
        latents, modes, bits = _code_widths(student, images, generator)
        features = student.decoder(latents, modes)
        outputs = [tail.intermediate(features) for tail in student.typed_tails()]
        learnt = Learnt(samples, indices, whole)
        loss, figures = answers_loss(outputs, wanted, learnt, recipe, weights)
        loss = loss + _rate(bits, modes, recipe)
        figures["bytes"] = bits.mean().item() / 8
        if student.exit is not None:
            share, figures["exit"] = _exit_loss(student.exit, latents, learnt, recipe, weights, wanted[0][1])
            loss = loss + share
        if student.picture is not None:
            error = picture_loss(student.picture(features), images)
            loss = loss + recipe.picture_weight * error
            figures["picture"] = error.item()
        return loss, figures

    groups = [
        *_codec_groups(student, recipe.tune_rate),
        *_exit_group(student),
        {"params": list(student.tails.parameters()), "lr": recipe.tail_rate},
    ]
    if student.picture is not None:
        groups.append({"params": list(student.picture.parameters()), "lr": recipe.picture_rate})
    optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
    return Stage("tune", recipe.tune_epochs, student, optimizer, step)


@dataclass(frozen=True)
class Learnt:
    """What a batch of a stage is learnt from."""

    samples: Samples
    indices: torch.Tensor
    """Of the batch's images, [B]."""
    whole: torch.Tensor
    """Images without a pasted rectangle, whose labels are known, bool [B]."""


def answers_loss(
    outputs: Sequence[tuple[torch.Tensor, torch.Tensor]],
    wanted: Sequence[tuple[torch.Tensor, torch.Tensor]],
    learnt: Learnt,
    recipe: Recipe,
    weights: Sequence[torch.Tensor],
) -> tuple[torch.Tensor, dict[str, float]]:
    """Task, distillation and feature error of the tails' :meth:`Tail.intermediate` against the teacher's."""
    known = [logits[learnt.whole] for _, logits in outputs]
    task = _task_loss(known, learnt.samples, learnt.indices[learnt.whole], recipe, weights)
    distill, error = torch.zeros(()), torch.zeros(())
    for (last, logits), (last_wanted, logits_wanted) in zip(outputs, wanted, strict=True):
        error = error + relative_error(last, last_wanted).mean()
        distill = distill + distillation(logits, logits_wanted, recipe.distill_temperature)
    loss = recipe.task_weight * task + recipe.distill_weight * distill + recipe.feature_weight * error
    return loss, {"task": task.item(), "distill": distill.item(), "feature": error.item()}


def _exit_loss(
    model: ExitNet,
    latents: torch.Tensor,
    learnt: Learnt,
    recipe: Recipe,
    weights: Sequence[torch.Tensor],
    wanted: torch.Tensor | None = None,
) -> tuple[torch.Tensor, float]:
    """The exit's share of the loss and its cross-entropy, from latents [B, C, H, W] in the order of the widths.

    ``wanted`` are the teacher's logits [B, K], where it was asked for them.
    """
    parts = zip(recipe.widths, latents.tensor_split(len(recipe.widths)), strict=True)
    logits = torch.cat([model(part, width) for width, part in parts])
    labels = next(iter(learnt.samples.labels.values()))[learnt.indices[learnt.whole]]
    task = functional.cross_entropy(logits[learnt.whole], labels, weights[0], label_smoothing=recipe.label_smoothing)
    loss = recipe.task_weight * task
    if wanted is not None:
        loss = loss + recipe.distill_weight * distillation(logits, wanted, recipe.distill_temperature)
    return recipe.exit_weight * loss, task.item()


@torch.no_grad()
def recalibrate(student: Student, samples: Samples, recipe: Recipe) -> None:
    """Replace the running statistics of all norms by exact ones over the training images, as they come.

    The head's are those of each width; the tails' are those of all modes mixed, as in training.
    """
    student.train()
    for width in recipe.widths:
        for images in averaged(student.head, samples, width):
            student.head(normalise(images), width)
    student.head.eval()
    generator = torch.Generator().manual_seed(recipe.seed)

    def features(images: torch.Tensor) -> torch.Tensor:
        latents, modes, _ = _code_widths(student, images, generator)
        decoded: torch.Tensor = student.decoder(latents, modes)
        return decoded

    recalibrate_tails(student.tails, samples, features)
    student.eval()


@torch.no_grad()
def recalibrate_tails(
    tails: torch.nn.ModuleList, samples: Samples, features: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """The same for tails alone, which read the features [B, F, H, W] that a function gives for images."""
    tails.train()
    for images in averaged(tails, samples):
        seen = features(images)
        for tail in tails:
            tail(seen)
    tails.eval()


def averaged(module: torch.nn.Module, samples: Samples, width: float = 1.0) -> Iterator[torch.Tensor]:
    """Batches of images; over them the norms of ``module`` at a width take plain means of their statistics."""
    norms = [layer.norm(width) for layer in module.modules() if isinstance(layer, ConvNorm)]
    for n, images in enumerate(samples.images.split(96), start=1):
        for norm in norms:
            norm.momentum = 1 / n  # so that batch n counts as much as each before it
        yield images
    for norm in norms:
        norm.momentum = 0.1


def _codec_groups(student: Student, rate: float) -> list[dict[str, Any]]:
    """Parameter groups of the optimiser for all but the tails.

    Gains live on a logarithmic scale and have to travel far, and a prior must keep up with what it describes.
    """
    layers = [*student.head.parameters(), *student.decoder.parameters()]
    return [
        {"params": layers, "lr": rate},
        {"params": list(student.gains.parameters()), "lr": 10 * rate, "weight_decay": 0.0},
        {"params": list(student.prior.parameters()), "lr": 5 * rate, "weight_decay": 0.0},
    ]


def _exit_group(student: Student) -> list[dict[str, Any]]:
    """The exit's parameters, which start from nothing and may move fast."""
    return [] if student.exit is None else [{"params": list(student.exit.parameters()), "lr": student.recipe.exit_rate}]


def _code_widths(
    student: Student, images: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents [B, C, H, W], modes [B] and bits [B]; each width codes its share of the batch."""
    latents, modes, bits = [], [], []
    widths = student.recipe.widths
    for width, part in zip(widths, images.tensor_split(len(widths)), strict=True):
        mode = student.sample_modes(width, len(part), generator)
        coded = student.code(part, width, mode, student.sample_groups(len(part), student.recipe.drop_groups, generator))
        latents.append(coded.latent)
        modes.append(mode)
        bits.append(coded.bits)
    return torch.cat(latents), torch.cat(modes), torch.cat(bits)


def intermediates(teacher: Lite0, x: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The last feature map and the logits of every task."""
    features = teacher.features(x)
    return [tail.intermediate(features) for tail in teacher.typed_tails()]


def _task_loss(
    logits: Sequence[torch.Tensor],
    samples: Samples,
    indices: torch.Tensor,
    recipe: Recipe,
    weights: Sequence[torch.Tensor],
) -> torch.Tensor:
    losses = [
        functional.cross_entropy(scores, labels[indices], weight, label_smoothing=recipe.label_smoothing)
        for scores, labels, weight in zip(logits, samples.labels.values(), weights, strict=True)
    ]
    return torch.stack(losses).sum()


def _rate(bits: torch.Tensor, modes: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    price = torch.tensor(recipe.rate_weights)[modes % recipe.gains]
    return (price * bits).mean()
