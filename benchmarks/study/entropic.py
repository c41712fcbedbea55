"""Entropic Student trained by its two stages on our data, from our teacher: one model a price of a bit.

    stage 1   encoder, prior, decoder; Adam 1e-3, a tenth of it after 5/10 and 8/10 of the stage; squared errors of the
              rebuilt features and of three later maps, summed, plus beta times bits. Errors are in units of each map's
              variance: ResNet's maps come out of a norm, Lite0's do not, and betas should mean what they mean there
    stage 2   decoder and tail; encoder and prior frozen; task and distillation

In its favour: stage 1 is longer than the paper's ten epochs, which here would be 400 steps; both stages see our
augmentation; stage 2 uses our loss and our optimiser for the tail, as the paper's plain gradient descent at 1e-3 counts
on 200,000 steps; norms get exact statistics; the tables are built as ours are, from training counts smoothed by the
learnt prior. Bytes are those of our coder with our header.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.entropic_student import EntropicStudent, encoder_macs, maps, parted
from benchmarks.study import learning
from benchmarks.study.bottleneck import HEADER_BYTES
from benchmarks.study.figures import Figures
from benchmarks.study.runner import Piece
from benchmarks.study.study import TEACHER, Study, labels_of
from headwater.compression.coder import Coder
from headwater.compression.learning.samples import augment, normalise, paste
from headwater.compression.learning.tail import channels_last
from headwater.compression.tables import PriorTables
from headwater.server.training.build import MOST_SYMBOL, PRIOR_SHARE
from headwater.server.training.lite import Lite0
from headwater.server.training.loop import Run, Stage
from headwater.server.training.stages import class_weights

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from rich.progress import Progress

    from benchmarks.study.plan import Plan
    from headwater.server.training.pipeline import Prepared
    from headwater.server.training.recipe import Recipe

CODEC_RATE, PRIOR_RATE = 1e-3, 1e-2
MINUTES = 110


def pieces(plan: Plan) -> list[Piece]:
    """One a price on each narrow split."""
    return [_piece(plan, seed, beta) for seed in plan.narrow_seeds for beta in plan.betas]


def _piece(plan: Plan, seed: int, beta: float) -> Piece:
    decides = {"beta": beta, "epochs": list(plan.entropic_epochs), "recipe": plan.peer_recipe(seed).to_json()}
    work = partial(train, seed=seed, beta=beta)
    return Piece(f"entropic-{beta:g}", seed, decides, work, builds_on=(TEACHER,), minutes=MINUTES)


def train(study: Study, folder: Path, progress: Progress, seed: int, beta: float) -> dict[str, Any]:
    """Both stages, then the held-out images through real bytes."""
    prepared, recipe, teacher = study.prepared(seed), study.plan.peer_recipe(seed), study.teacher(seed)
    run = Run(folder, recipe, prepared.source)
    torch.manual_seed(seed)
    student = EntropicStudent(teacher)
    channels_last(student)
    training = _Training(student, teacher, prepared, recipe, run.generator)
    first, second = study.plan.entropic_epochs
    run.fit(training.stage_1(first, beta), prepared.train, progress)
    run.fit(training.stage_2(second), prepared.train, progress)
    learning.recalibrate(student.tail, training.batches())
    figures = score(student, prepared)
    macs = encoder_macs(prepared.spec.channels, prepared.spec.height)
    row = {"setting": f"beta {beta:g}", "figures": figures.to_json()}
    return {"rows": [row], "encoder_macs": macs.convolutions, "encoder_norm_macs": macs.normalisation}


def fallen(done: float) -> float:
    """Factor on the rate when a share of stage 1 is over: the paper's steps at 5 and 8 of 10 epochs."""
    return 0.1 ** ((done >= 0.5) + (done >= 0.8))


class _Training:
    """A student, its teacher, and what a step of each stage does."""

    def __init__(
        self, student: EntropicStudent, teacher: Lite0, prepared: Prepared, recipe: Recipe, generator: torch.Generator
    ) -> None:
        self.student, self.teacher, self.prepared, self.recipe = student, teacher, prepared, recipe
        self.generator = generator
        self.front, self.frozen_tail = parted(teacher)
        self.frozen_tail.eval().requires_grad_(requires_grad=False)
        task = prepared.tasks[0]
        self.labels = prepared.train.labels[task.name]
        self.weight = class_weights(self.labels, len(task.labels), recipe)

    def stage_1(self, epochs: int, beta: float) -> Stage:
        learnt = [*self.student.encoder.parameters(), *self.student.decoder.parameters()]
        optimizer = torch.optim.Adam(
            [
                {"params": learnt, "lr": CODEC_RATE},
                # A prior has to keep up with what it describes; this is the rate that ours gets.
                {"params": list(self.student.prior.parameters()), "lr": PRIOR_RATE},
            ]
        )
        return Stage("rebuild", epochs, self.student, optimizer, partial(self._rebuild, beta=beta), fallen)

    def _rebuild(self, indices: torch.Tensor, beta: float) -> tuple[torch.Tensor, dict[str, float]]:
        x = normalise(augment(self.prepared.train.images[indices], self.recipe.augmentation, self.generator))
        with torch.no_grad():
            wanted = maps(self.frozen_tail, self._early(x))
        latent = self.student.encoder(x)
        bits = self.student.bits(latent).mean()
        noisy = latent + torch.rand_like(latent) - 0.5
        found = maps(self.frozen_tail, self.student.decoder(noisy))
        errors = [(a - b).square().sum() / b.var() for a, b in zip(found, wanted, strict=True)]
        error = torch.stack(errors).sum() / len(x)
        return error + beta * bits, {"error": error.item(), "bytes": bits.item() / 8}

    def _early(self, x: torch.Tensor) -> torch.Tensor:
        x = self.teacher.stem(x)
        for block in self.front:
            x = block(x)
        return x

    def stage_2(self, epochs: int) -> Stage:
        groups = [
            {"params": list(self.student.decoder.parameters()), "lr": self.recipe.tune_rate},
            {"params": list(self.student.tail.parameters()), "lr": self.recipe.tail_rate},
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=self.recipe.weight_decay)
        return Stage("answer", epochs, self.student, optimizer, self._answer)

    def _answer(self, indices: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        images = augment(self.prepared.train.images[indices], self.recipe.augmentation, self.generator)
        images, whole = paste(images, self.recipe.mix, self.generator)
        x = normalise(images)
        with torch.no_grad():
            wanted = self.teacher(x)[0]
        logits = self._run(x)
        loss = learning.answers_loss(logits, wanted, self.labels[indices], whole, self.weight, self.recipe)
        return loss, {"loss": loss.item()}

    def batches(self) -> list[partial[torch.Tensor]]:
        """Calls that run the student on all training images, a batch each."""
        return [partial(self._run, normalise(images)) for images in self.prepared.train.images.split(learning.BATCH)]

    def _run(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            symbols = self.student.encoder(x).round()
        answers: torch.Tensor = self.student.tail(self.student.decoder(symbols))
        return answers


def score(student: EntropicStudent, prepared: Prepared) -> Figures:
    """Code every held-out image to bytes, decode it, answer from what was decoded."""

    def symbols(images: torch.Tensor) -> NDArray[np.float32]:
        return learning.answers(lambda x: student.encoder(normalise(x)).round(), images)

    tables = build_tables(student, symbols(prepared.train.images))
    test = symbols(prepared.test.images).astype(np.int16)
    N, _, H, W = test.shape
    coder = Coder(tables, H, W)
    payloads = [coder.encode(one, 0).payload for one in test]
    latents, errors = coder.decode_batch(payloads, [0] * N, [1] * N)
    assert not any(errors)
    assert (latents == test).all()
    logits = learning.answers(lambda x: student.tail(student.decoder(x)), torch.from_numpy(latents))
    sizes = np.array([HEADER_BYTES + len(payload) for payload in payloads], np.int64)
    return Figures.of(sizes, logits, labels_of(prepared.test, prepared))


def build_tables(student: EntropicStudent, symbols: NDArray[np.float32]) -> PriorTables:
    """Integer tables as ours are built: counts of training symbols [N, C, H, W], smoothed by the learnt density."""
    _, C, H, W = symbols.shape
    learnt = student.prior.probabilities(-MOST_SYMBOL, MOST_SYMBOL).numpy()[0]
    beyond = np.maximum(1 - learnt.sum(axis=1, keepdims=True), 1e-6)
    counts = np.stack([_counts(symbols[:, c]) for c in range(C)])
    weights = counts + PRIOR_SHARE * counts.sum(axis=1, keepdims=True) * np.concatenate([learnt, beyond], axis=1)
    one = np.ones((1, C))
    return PriorTables.from_counts([list(weights)], [[-MOST_SYMBOL] * C], one, one, (C,), plane=H * W)


def _counts(symbols: NDArray[np.float32]) -> NDArray[np.int64]:
    """Of -MOST_SYMBOL .. MOST_SYMBOL and, last, of all beyond."""
    inside = np.abs(symbols) <= MOST_SYMBOL
    index = np.where(inside, symbols + MOST_SYMBOL, 2 * MOST_SYMBOL + 1).astype(np.int64)
    return np.bincount(index.ravel(), minlength=2 * MOST_SYMBOL + 2)
