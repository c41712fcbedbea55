"""The local exit: a small classifier on the head's latent, one for all widths, trained when all else is done.

It learns the labels and the server's own answers (what costs accuracy is to differ from the server where that is
right). Head, decoder and tails stay as they are, so their outputs are computed once for a few *views* of every training
image, the first as it is, the others augmented and with pasted rectangles; from then on an epoch takes seconds.

The network itself is in `compression/learning/exit_net.py`; the stages before this one have trained it along with the
head already, and `exit_files.py` puts it into the bundle. Early exits go back to BranchyNet (Teerapittayanon et al.,
ICPR 2016); DDNN (ICDCS 2017) put the first one on the device.

Legend: B batch, C latent channels, H height, W width of the latent, K classes, N images, V views.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from headwater.compression.learning.exit_net import ExitNet
from headwater.compression.learning.losses import distillation
from headwater.compression.learning.samples import Samples, augment, normalise, paste
from headwater.server.training.loop import Stage
from headwater.server.training.stages import averaged

if TYPE_CHECKING:
    from rich.progress import Progress

    from headwater.server.training.loop import Run
    from headwater.server.training.student import Student

VIEWS = 2
"""More made no difference on the solar cells, and each costs as much as two thirds of an epoch of the stage before."""
NORM_IMAGES = 1024
"""So many images are enough for the statistics of a norm over a whole map."""
RATE = 5e-3


@dataclass(frozen=True)
class _Views:
    """What the frozen student gives for every view of every image."""

    latents: torch.Tensor
    """float16 [V, widths, N, C, H, W]."""
    answers: torch.Tensor
    """The server's logits at the widest width and the finest gain, [V, N, K]."""
    whole: torch.Tensor
    """Views without a pasted rectangle, whose label is known, bool [V, N]."""


def fit_exit(run: Run, student: Student, samples: Samples, weights: torch.Tensor, progress: Progress) -> ExitNet | None:
    """Train the exit for the first task, from its last checkpoint if there is one.

    Args:
        run: keeps the checkpoints and the history.
        student: finished; it is not changed.
        samples: the training images.
        weights: of each class in the task's loss, [K].
        progress: shows how far it is.

    Returns:
        The exit, ready to be exported; None if the recipe has no epochs for one.
    """
    recipe = student.recipe
    if student.exit is None:
        return None
    student.eval()
    torch.manual_seed(recipe.seed)
    model = copy.deepcopy(student.exit)
    run.fit(exit_stage(model, student, samples, weights, run.generator, progress), samples, progress)
    _recalibrate(model, student, samples)
    return model.eval()


def exit_stage(
    model: ExitNet,
    student: Student,
    samples: Samples,
    weights: torch.Tensor,
    generator: torch.Generator,
    progress: Progress,
) -> Stage:
    """Learn the labels and the server's answers, every image at every width, in a random view."""
    recipe = student.recipe
    labels = next(iter(samples.labels.values()))
    seen: list[_Views] = []  # made with the first step, not at all if the stage is over

    def step(indices: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        if not seen:
            seen.append(_views(student, samples, progress))
        view = torch.randint(0, VIEWS, indices.shape, generator=generator)
        known, wanted = seen[0].whole[view, indices], seen[0].answers[view, indices]
        task, distill = torch.zeros(()), torch.zeros(())
        for w, width in enumerate(recipe.widths):
            logits = model(seen[0].latents[view, w, indices].float(), width)
            distill = distill + distillation(logits, wanted, recipe.distill_temperature)
            if known.any():
                task = task + functional.cross_entropy(
                    logits[known], labels[indices[known]], weights, label_smoothing=recipe.label_smoothing
                )
        loss = recipe.task_weight * task + recipe.distill_weight * distill
        return loss, {"task": task.item() / len(recipe.widths), "distill": distill.item() / len(recipe.widths)}

    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=recipe.weight_decay)
    return Stage("exit", recipe.exit_epochs, model, optimizer, step)


@torch.no_grad()
def _recalibrate(model: ExitNet, student: Student, samples: Samples) -> None:
    """Replace the running statistics of the norms by means over training images, as they come."""
    model.train()
    some = Samples(samples.images[:: -(-len(samples) // NORM_IMAGES)], {})
    for width in model.widths:
        for images in averaged(model, some, width):
            model(student.head(normalise(images), width), width)


@torch.no_grad()
def _latent_shape(student: Student, samples: Samples) -> tuple[int, int, int]:
    C, H, W = student.head(normalise(samples.images[:1]), student.recipe.widths[-1]).shape[1:]
    return C, H, W


@torch.no_grad()
def _views(student: Student, samples: Samples, progress: Progress) -> _Views:
    """Run the student on all views; the same at every call, so that a run that goes on sees what it saw before."""
    recipe, N = student.recipe, len(samples)
    generator = torch.Generator().manual_seed(recipe.seed)
    classes = int(next(student.typed_tails()).classify.out_features)
    views = _Views(
        torch.empty(VIEWS, len(recipe.widths), N, *_latent_shape(student, samples), dtype=torch.float16),
        torch.empty(VIEWS, N, classes),
        torch.ones(VIEWS, N, dtype=torch.bool),
    )
    parts = torch.arange(N).split(recipe.batch)
    bar = progress.add_task("exit: views", total=VIEWS * len(parts))
    for view in range(VIEWS):
        for part in parts:
            images = samples.images[part].float()
            if view:
                images = augment(samples.images[part], recipe.augmentation, generator)
                images, views.whole[view, part] = paste(images, recipe.mix, generator)
            for w, width in enumerate(recipe.widths):
                latents = student.head(normalise(images), width)
                views.latents[view, w, part] = latents.half()
            views.answers[view, part] = _answer(student, latents)
            progress.advance(bar)
    return views


def _answer(student: Student, latents: torch.Tensor) -> torch.Tensor:
    """The server's logits [B, K] to latents of the widest width, sent at the finest gain."""
    mode = torch.full((len(latents),), len(student.recipe.widths) * student.recipe.gains - 1)
    sent = student.gains.unscale(student.gains.scale(latents, mode).round(), mode)
    return next(student.typed_tails())(student.decoder(sent, mode))
