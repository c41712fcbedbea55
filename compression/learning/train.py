"""Local training: a few steps from the network as it came, on a device's own images.

Every step runs the widest width that the device trains and, in turn, one of the narrower ones, each image at a random
gain and some of its frames cut:

    widest      task + more bytes + exit
    narrower    task + distil * (the widest's answers, now) + more bytes + exit

so that narrow widths, which few devices would train well by themselves, learn from wide ones on every device (DepthFL:
Kim et al., ICLR 2023; in-place distillation: Yu and Huang, ICCV 2019), and so does the exit from the tail. The widest
learns the answers of the network as it came for tasks that the device has no labels of, lest they be forgotten. For the
others it does not: what was said of whole images, learnt where noise, coarse gains and cuts leave less to go by, makes
all devices less and less sure, and on skewed ones that is all that their average learns.

Bytes have their price only where frames take more of them than they did as the network came. To send less is what every
device's gradient says in every step, while what tells classes apart differs from one device to the next: with a price
on each byte their average would send less and less and know less and less, round by round.

Where the tail does not fit, the *head* is trained alone, by a loss at the cut: the exit is the auxiliary classifier
(CSE-FSL: Mu and Shen, 2023), and latents are held to those of the head as it came, since the tail has to go on reading
them:

    each width   task at the exit + distil * latents, as they came + more bytes

As far as the plan says, the labels' shares are taken out of the task loss
(:func:`headwater.compression.learning.losses.label_shift`).

Legend: B batch, C latent channels, H height, W width, K classes, N images.
"""

from __future__ import annotations

import math
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from headwater.compression.allocator import give_back
from headwater.compression.errors import LearningError
from headwater.compression.learning.arrays import arrays_of
from headwater.compression.learning.importance import collecting
from headwater.compression.learning.layout import layout_of
from headwater.compression.learning.losses import distillation, label_shift, price_of_growth, relative_error
from headwater.compression.learning.meter import Meter
from headwater.compression.learning.optimizers import make
from headwater.compression.learning.plan import Plan, Trained
from headwater.compression.learning.samples import augment, normalise

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from headwater.compression.learning.network import SplitNetwork
    from headwater.compression.learning.samples import Samples
    from headwater.compression.learning.sparse import Sparsity
    from headwater.compression.learning.terms import Terms
    from headwater.compression.updates.layout import Layout

ANSWERED_AT_ONCE = 4
"""Images whose answers are computed together: more take memory that training may not have, and no less time."""
LONGEST_GRADIENT = 5.0
"""Norm that the gradient of all arrays together is cut to."""


def train(
    network: SplitNetwork,
    samples: Samples,
    plan: Plan,
    terms: Terms,
    sparsity: Sparsity | None = None,
    *,
    teacher: SplitNetwork | None = None,
    came: Mapping[str, NDArray[np.float32]] | None = None,
) -> Trained:
    """Train a network in place.

    On one thread the same call gives the same arrays, to the last bit, whatever other threads draw from torch's own
    generator: nothing is drawn from it here.

    Args:
        network: frozen, with the arrays of the version that the update will be relative to.
        samples: the device's images and labels.
        plan: what to do.
        terms: of the bundle.
        sparsity: of this network, in a sparse round.
        teacher: whose answers the widest learns, to every image and task.
        came: the network's arrays as they are, where the caller has them: it saves a copy.

    Raises:
        LearningError: for no images, a width that there is not, no exit to train a head by, a loss that is not finite.
    """
    _check(network, samples, plan)
    layout = layout_of(network, plan.part)
    with ExitStack() as stack:
        meter = stack.enter_context(Meter())
        stack.enter_context(_training(network, layout))
        before = came or arrays_of(network)
        lesson = _Lesson(network, samples, plan, terms, _answers(network, teacher, samples, plan))
        collected = stack.enter_context(collecting(network, plan.gather)) if plan.gather else None
        if sparsity is not None:
            stack.enter_context(sparsity.installed())
        figures = _steps(lesson, layout, sparsity)
        gathered = {**(collected.arrays() if collected else {}), **(sparsity.gathered() if sparsity else {})}
        give_back()
        delta = _delta(network, before, layout, plan.width)
    return Trained(delta, {**figures, "peak-bytes": meter.peak_bytes}, gathered)


def _check(network: SplitNetwork, samples: Samples, plan: Plan) -> None:
    if plan.width not in network.widths:
        raise LearningError(f"there is no width {plan.width:g} to train; there are {network.widths}")
    if not len(samples):
        raise LearningError("there are no images to train on")
    if plan.part == "head" and network.exit is None:
        raise LearningError("the bundle has no local exit, by which a head is trained alone; the tail has to fit")


@contextmanager
def _training(network: SplitNetwork, layout: Layout) -> Iterator[None]:
    """Gradients for what is trained alone; dropout stays off, since the few steps here do not wear anything out."""
    network.eval()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in layout.shapes)
    try:
        yield
    finally:
        network.requires_grad_(requires_grad=True)
        network.zero_grad(set_to_none=True)


def _delta(
    network: SplitNetwork, before: Mapping[str, NDArray[np.float32]], layout: Layout, width: float
) -> dict[str, NDArray[np.float32]]:
    after = dict(network.named_parameters())
    delta = {name: np.ascontiguousarray(after[name].detach().numpy()) - before[name] for name in layout.shapes}
    return layout.cut(delta, width)


# ---------------------------------------------------------------- steps


def _steps(lesson: _Lesson, layout: Layout, sparsity: Sparsity | None) -> dict[str, float]:
    """Step until all images were seen as often as planned, or the time is over; mean figures of the steps."""
    plan = lesson.plan
    trained = [parameter for name, parameter in lesson.network.named_parameters() if name in layout.shapes]
    optimizer = make(plan.optimizer, trained, plan.rate)
    batches = list(_batches(len(lesson.samples), plan, lesson.generator))
    started, sums, steps, seen = time.process_time(), dict[str, float](), 0, 0
    for step, indices in enumerate(batches):
        give_back()
        if sparsity is not None:
            sparsity.before_step(last=step == len(batches) - 1)
        for name, value in lesson.gradients(indices, step).items():
            sums[name] = sums.get(name, 0.0) + value
        for group in optimizer.param_groups:
            group["lr"] = plan.rate * (sparsity.rate(step / len(batches)) if sparsity is not None else 1.0)
        if sparsity is None:
            torch.nn.utils.clip_grad_norm_(trained, LONGEST_GRADIENT)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        else:
            sparsity.step(optimizer, LONGEST_GRADIENT)
        steps, seen = steps + 1, seen + len(indices)
        if plan.seconds and time.process_time() - started > plan.seconds:
            break
    figures = {name: value / steps for name, value in sums.items()}
    examples = min(len(lesson.samples), seen)
    return {**figures, "num-examples": examples, "steps": steps, "seconds": time.process_time() - started}


def _batches(count: int, plan: Plan, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Indices of each step: all images in random order, again and again until the epochs are over."""
    wanted = max(1, round(plan.epochs * count))
    orders = [torch.randperm(count, generator=generator) for _ in range(math.ceil(wanted / count))]
    yield from torch.cat(orders)[:wanted].split(plan.batch)


@dataclass(frozen=True)
class _Batch:
    """Some images of a step."""

    pixels: torch.Tensor
    """Augmented, float32 [B, C_in, H_in, W_in]."""
    labels: Mapping[str, torch.Tensor]
    wanted: Mapping[str, torch.Tensor]
    """Answers to learn, [B, K] of some tasks."""


class _Lesson:
    """The loss of every step."""

    def __init__(
        self, network: SplitNetwork, samples: Samples, plan: Plan, terms: Terms, answers: Mapping[str, torch.Tensor]
    ) -> None:
        """Take the answers that the widest learns, [N, K] of some tasks."""
        self.network, self.samples, self.plan, self.terms = network, samples, plan, terms
        self.generator = torch.Generator().manual_seed(plan.seed)
        self.noise = torch.Generator().manual_seed(plan.seed)
        self.narrower = [width for width in network.widths if width < plan.width]
        self.prices = torch.tensor(terms.rate_weights or (0.0,) * network.steps).repeat(len(network.widths))
        self.shift = {
            task: plan.logit_adjustment * label_shift(labels, _classes(network, task), terms.train_labels.get(task, ()))
            for task, labels in samples.labels.items()
        }
        self.came = network.beside()
        """What codes, as it came."""
        self.answers = answers

    def gradients(self, indices: torch.Tensor, step: int) -> dict[str, float]:
        """Add the gradients of a step's loss; its figures."""
        pixels = augment(self.samples.images[indices], self.terms.augmentation, self.generator)
        figures: dict[str, float] = {}
        at_once = self.plan.at_once or len(indices)
        for some, part in zip(pixels.split(at_once), indices.split(at_once), strict=True):
            labels = {task: labels[part] for task, labels in self.samples.labels.items()}
            batch = _Batch(some, labels, {task: answers[part] for task, answers in self.answers.items()})
            for name, value in self._widths(batch, step, len(part) / len(indices)).items():
                figures[name] = figures.get(name, 0.0) + value
        return figures

    def _widths(self, batch: _Batch, step: int, share: float) -> dict[str, float]:
        """The widest, then one of the narrower ones, which learns what the widest has just said."""
        answers, figures = self._backward(batch, self.plan.width, share)
        if self.narrower:
            narrow = self.narrower[step % len(self.narrower)]
            self._backward(replace(batch, wanted=answers), narrow, share)
        return figures

    def _backward(self, batch: _Batch, width: float, share: float) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        outputs, loss, figures = self._loss(batch, width)
        if not torch.isfinite(loss):
            raise LearningError(f"the loss became {loss.item()} at width {width:g}; train with a lower rate")
        (loss * share).backward()
        return self._said(outputs), {name: value * share for name, value in figures.items()}

    def _said(self, outputs: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Answers as others may learn them, by task."""
        return {task: output.detach() for task, output in zip(self.network.tasks, outputs, strict=False)}

    def _loss(self, batch: _Batch, width: float) -> tuple[list[torch.Tensor], torch.Tensor, dict[str, float]]:
        """Answers, loss and figures of some images at a width."""
        network, B = self.network, len(batch.pixels)
        mode = network.sample_modes(width, B, self.generator)
        groups = network.sample_groups(B, self.terms.drop_groups, self.generator)
        with torch.no_grad():
            before = self.came.code(batch.pixels, width, mode, groups, self.noise.clone_state())
        coded = network.code(batch.pixels, width, mode, groups, self.noise)
        loss = price_of_growth(self.prices[mode] * before.bits, self.prices[mode] * coded.bits)
        figures = {"bytes": coded.bits.mean().item() / 8}
        if self.plan.part == "head":
            outputs = [network.exit(coded.latent, width)] if network.exit is not None else []
            with torch.no_grad():
                came = self.came.head(normalise(batch.pixels), width)
            loss = loss + self.plan.distil * relative_error(coded.latent, came).mean()
        else:
            features = network.decoder(coded.latent, mode)
            outputs = [tail(features) for tail in network.typed_tails()]
            learnt = replace(batch, wanted={**self._said(outputs), **batch.wanted})
            loss = loss + self._exit_loss(coded.latent, learnt, width)
        task, distill = self._answers_loss(outputs, batch)
        loss = loss + self.terms.task_weight * task + self.plan.distil * distill
        return outputs, loss, figures | {"task": task.item(), "loss": loss.item()}

    def _exit_loss(self, latent: torch.Tensor, batch: _Batch, width: float) -> torch.Tensor:
        if self.network.exit is None:
            return torch.zeros(())
        task, distill = self._answers_loss([self.network.exit(latent, width)], batch)
        return self.terms.exit_weight * (self.terms.task_weight * task + self.plan.distil * distill)

    def _answers_loss(self, outputs: Sequence[torch.Tensor], batch: _Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy and distillation of the first tasks' logits [B, K]."""
        task, distill = torch.zeros(()), torch.zeros(())
        for name, logits in zip(self.network.tasks, outputs, strict=False):
            if name in batch.labels:
                task = task + functional.cross_entropy(logits + self.shift[name], batch.labels[name])
            if name in batch.wanted:
                distill = distill + distillation(logits, batch.wanted[name], self.terms.distill_temperature)
        return task, distill


def _classes(network: SplitNetwork, task: str) -> int:
    return list(network.typed_tails())[network.tasks.index(task)].classify.out_features


@torch.no_grad()
def _answers(
    network: SplitNetwork, teacher: SplitNetwork | None, samples: Samples, plan: Plan
) -> dict[str, torch.Tensor]:
    """What is said of every image at the widest width and the finest gain, [N, K] of each task to be learnt so.

    That is every task of a teacher; of the network itself as it came, those without labels here.
    """
    tasks = network.tasks[:1] if plan.part == "head" else network.tasks
    names = [task for task in tasks if teacher is not None or task not in samples.labels]
    if not names:
        return {}
    asked = teacher or network
    parts: list[list[torch.Tensor]] = []
    for images in samples.images.split(ANSWERED_AT_ONCE):
        if plan.part == "head":
            assert asked.exit is not None
            parts.append([asked.exit(asked.head(normalise(images), plan.width), plan.width)])
        else:
            parts.append(asked(images, plan.width, -1))
    answers = dict(zip(tasks, (torch.cat(each) for each in zip(*parts, strict=True)), strict=True))
    return {task: answers[task] for task in names}


@torch.no_grad()
def evaluate(network: SplitNetwork, samples: Samples, width: float, gain: int) -> dict[str, float]:
    """``loss`` and ``accuracy`` of the first task, frames sent whole, at a width and a gain (-1: the finest).

    Raises :class:`LearningError` if there are no images with labels of it.
    """
    labels = samples.labels.get(network.tasks[0])
    if labels is None or not len(samples):
        raise LearningError(f"there are no images with labels of {network.tasks[0]} to measure on")
    network.eval()
    logits = torch.cat([network(images, width, gain)[0] for images in samples.images.split(EVALUATED_AT_ONCE)])
    right: Any = (logits.argmax(dim=1) == labels).float().mean()
    return {"loss": float(functional.cross_entropy(logits, labels)), "accuracy": float(right)}


EVALUATED_AT_ONCE = 16
