"""JPEG, WebP and AVIF at several sizes and qualities, read by the untouched teacher and by one tuned for the codec.

Every picture starts from the pixels that our head gets: brought to the setting's size, coded, decoded, scaled back.
Bytes are counted by :mod:`headwater.simulations.codecs`: without what is the same in every picture, so that only the
picture itself is paid for; whole files are counted beside.

The tuned teacher is the fair baseline: what a user would do who has a codec and labelled images. One network is tuned
for each codec and size, with a quality drawn at random for each image. That is not worse than one a quality: the
pictures of neighbouring qualities differ little, each image is seen at another quality in each epoch, which is
augmentation that a single quality lacks, and in the published comparisons of split computing one tuned network a codec
is the rule. Who doubts it tunes for a single quality: the piece ``tuned-webp-64-q50`` (any codec, size and quality) is
run when it is named in ``--pieces``, and its row takes part like any other once every split has it.
It is tuned with label and distillation from the clean teacher, as our student is, and with the same augmentation and
pasted images before the codec; its norms get exact statistics at the end, as ours do.
"""

from __future__ import annotations

import io
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from PIL import Image, features

from benchmarks.study import learning
from benchmarks.study.figures import Figures
from benchmarks.study.plan import CODECS, Plan
from benchmarks.study.runner import Piece
from benchmarks.study.study import OURS, TEACHER, Study, labels_of
from headwater.compression.inference import session
from headwater.compression.learning.samples import augment, normalise, paste
from headwater.server.training.lite import Lite0
from headwater.server.training.loop import Run, Stage
from headwater.server.training.stages import class_weights
from headwater.simulations.codecs import Setting, encode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from rich.progress import Progress

    from headwater.compression.bundle import Bundle
    from headwater.compression.image import InputSpec
    from headwater.server.training.pipeline import Prepared
    from headwater.server.training.recipe import Recipe
    from headwater.simulations.codecs import Name

UNTOUCHED_MINUTES = {"JPEG": 5, "WebP": 5, "AVIF": 9}
TUNED_MINUTES = 11
_ONE_QUALITY = re.compile(r"tuned-(\w+)-(\d+)-q(\d+)")


def pieces(plan: Plan) -> list[Piece]:
    """A piece a codec for the untouched teacher, on all splits; one a codec and size for tuned ones."""
    untouched = [_untouched(plan, seed, codec) for seed in plan.seeds for codec in CODECS]
    tuned = [
        _tuned(plan, seed, codec, side, plan.qualities[codec])
        for seed in plan.seeds
        for codec in plan.tuned_codecs(seed)
        for side in plan.tuned_sides(codec)
    ]
    return untouched + tuned


def named(plan: Plan, name: str) -> list[Piece]:
    """The pieces, one a split, of a teacher tuned for one quality: ``tuned-webp-64-q50``; none for another name."""
    match = _ONE_QUALITY.fullmatch(name)
    codecs = [codec for codec in CODECS if match and codec.lower() == match[1]]
    if match is None or not codecs:
        return []
    side, quality = int(match[2]), int(match[3])
    return [_tuned(plan, seed, codecs[0], side, (quality,), f"-q{quality}") for seed in plan.seeds]


def _untouched(plan: Plan, seed: int, codec: Name) -> Piece:
    settings = plan.settings(codec)
    return Piece(
        f"codec-{codec.lower()}",
        seed,
        {"settings": [str(setting) for setting in settings]},
        partial(score_untouched, seed=seed, settings=settings),
        builds_on=(OURS,),
        minutes=UNTOUCHED_MINUTES[codec],
    )


def _tuned(plan: Plan, seed: int, codec: Name, side: int, qualities: Sequence[int], suffix: str = "") -> Piece:
    settings = [Setting(codec, side, side, quality) for quality in qualities]
    decides = {
        "settings": [str(setting) for setting in settings],
        "epochs": plan.tuned_epochs,
        "rate": plan.tuned_rate,
        "recipe": plan.peer_recipe(seed).to_json(),
    }
    work = partial(tune, seed=seed, settings=settings)
    name = f"tuned-{codec.lower()}-{side}{suffix}"
    return Piece(name, seed, decides, work, builds_on=(TEACHER,), minutes=TUNED_MINUTES)


# ---------------------------------------------------------------- the teacher as it is


def score_untouched(
    study: Study, _: Path, progress: Progress, seed: int, settings: Sequence[Setting]
) -> dict[str, Any]:
    """Score every setting with the bundle's unsplit network."""
    prepared = study.prepared(seed)
    bundle = study.bundle(seed)
    images, labels = prepared.test.images.numpy(), labels_of(prepared.test, prepared)
    return untouched(bundle, images, labels, settings, study.threads, progress)


def untouched(
    bundle: Bundle,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    settings: Sequence[Setting],
    threads: int,
    progress: Progress,
) -> dict[str, Any]:
    """Rows of the settings of one codec that Pillow has; images [N, C, H, W], labels [N]."""
    if missing := _missing(settings[0].codec):
        return missing
    spec, network = bundle.manifest.input, session(bundle.read("local.onnx"))
    rows = []
    with ThreadPoolExecutor(threads) as pool:
        for setting in progress.track(settings, description=f"{settings[0].codec}, untouched teacher"):
            coded = through(images, [setting] * len(images), spec, pool)
            logits = [network.run(["logits"], {"image": image[np.newaxis]})[0] for image in coded.images]
            rows.append(_row(setting, Figures.of(coded.sizes, np.concatenate(logits), labels, coded.file_sizes)))
    return {"rows": rows}


# ---------------------------------------------------------------- tuned for the codec


def tune(study: Study, folder: Path, progress: Progress, seed: int, settings: Sequence[Setting]) -> dict[str, Any]:
    """Tune the teacher for settings that differ in quality, then score each."""
    if missing := _missing(settings[0].codec):
        return missing
    prepared, recipe = study.prepared(seed), study.plan.peer_recipe(seed)
    network, clean = study.teacher(seed), study.teacher(seed)
    run = Run(folder, recipe, prepared.source)
    with ThreadPoolExecutor(study.threads) as pool:
        tuning = _Tuning(network, clean, prepared, recipe, settings, run.generator, pool)
        optimizer = torch.optim.AdamW(network.parameters(), lr=study.plan.tuned_rate, weight_decay=recipe.weight_decay)
        run.fit(
            Stage("tuned", study.plan.tuned_epochs, network, optimizer, tuning.step),
            prepared.train,
            progress,
        )
        learning.recalibrate(network, tuning.batches())
        return {"rows": [tuning.scored(setting) for setting in settings]}


class _Tuning:
    """A network that learns to read a codec's pictures."""

    def __init__(
        self,
        network: Lite0,
        clean: Lite0,
        prepared: Prepared,
        recipe: Recipe,
        settings: Sequence[Setting],
        generator: torch.Generator,
        pool: ThreadPoolExecutor,
    ) -> None:
        self.network, self.clean, self.prepared, self.recipe = network, clean, prepared, recipe
        self.settings, self.generator, self.pool = settings, generator, pool
        task = prepared.tasks[0]
        self.labels = prepared.train.labels[task.name]
        self.weight = class_weights(self.labels, len(task.labels), recipe)

    def step(self, indices: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        images = augment(self.prepared.train.images[indices], self.recipe.augmentation, self.generator)
        images, whole = paste(images, self.recipe.mix, self.generator)
        with torch.no_grad():
            wanted = self.clean(normalise(images))[0]
        logits = self.network(self._seen(images.round().to(torch.uint8)))[0]
        loss = learning.answers_loss(logits, wanted, self.labels[indices], whole, self.weight, self.recipe)
        return loss, {"loss": loss.item()}

    def batches(self) -> list[partial[list[torch.Tensor]]]:
        """Calls that run the network on all training images as the codec leaves them, a batch each."""
        return [partial(self._run, images) for images in self.prepared.train.images.split(learning.BATCH)]

    def _run(self, images: torch.Tensor) -> list[torch.Tensor]:
        answers: list[torch.Tensor] = self.network(self._seen(images))
        return answers

    def _seen(self, images: torch.Tensor) -> torch.Tensor:
        """Pixels uint8 [B, C, H, W] through the codec, each at a quality drawn at random, normalised."""
        drawn = torch.randint(len(self.settings), (len(images),), generator=self.generator).tolist()
        coded = through(images.numpy(), [self.settings[at] for at in drawn], self.prepared.spec, self.pool)
        return normalise(torch.from_numpy(coded.images)).contiguous(memory_format=torch.channels_last)

    def scored(self, setting: Setting) -> dict[str, Any]:
        """The row of a setting on the held-out images."""
        test = self.prepared.test
        coded = through(test.images.numpy(), [setting] * len(test), self.prepared.spec, self.pool)
        logits = learning.answers(lambda x: self.network(normalise(x))[0], torch.from_numpy(coded.images))
        labels = labels_of(test, self.prepared)
        return _row(setting, Figures.of(coded.sizes, logits, labels, coded.file_sizes))


# ---------------------------------------------------------------- through a codec


class Coded(NamedTuple):
    """Pictures that went through a codec."""

    images: NDArray[np.uint8]
    """[N, C, H, W]."""
    sizes: NDArray[np.int64]
    file_sizes: NDArray[np.int64]


def through(images: NDArray[np.uint8], settings: Sequence[Setting], spec: InputSpec, pool: ThreadPoolExecutor) -> Coded:
    """Code and decode images [N, C, H, W], each at its setting."""
    results = list(pool.map(partial(_through, spec=spec), images, settings))
    sizes, files = (np.array([result[at] for result in results], np.int64) for at in (1, 2))
    return Coded(np.stack([result[0] for result in results]), sizes, files)


def _through(image: NDArray[np.uint8], setting: Setting, spec: InputSpec) -> tuple[NDArray[np.uint8], int, int]:
    picture = Image.fromarray(image[0] if spec.mode == "L" else np.ascontiguousarray(image.transpose(1, 2, 0)))
    if picture.size != setting.side:
        picture = picture.resize(setting.side, Image.Resampling.BILINEAR)
    data, size = encode(picture, setting)
    with Image.open(io.BytesIO(data)) as decoded:
        return spec.apply(decoded), size, len(data)


def _missing(codec: Name) -> dict[str, Any] | None:
    feature = {"JPEG": "jpg", "WebP": "webp", "AVIF": "avif"}[codec]
    return None if features.check(feature) else {"missing": f"this Pillow was built without {codec}"}


def _row(setting: Setting, figures: Figures) -> dict[str, Any]:
    return {"setting": str(setting), "figures": figures.to_json()}
