"""The pictures of a run, and what each way of answering makes of them: the bytes of each frame, right or wrong.

Every picture is coded in every mode before anything is timed, with the graphs and tables that the bundle ships: the
oracle knows the bytes of each. Whether it would have been right is found out afterwards, for what it chose.

Letters: N pictures, M modes.
"""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np

from headwater.compression.frame import Frame
from headwater.compression.inference import session
from headwater.device.exit import LocalExit
from headwater.device.head import Head
from headwater.server.tails import Tails
from headwater.simulations.samples import take_samples

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from benchmarks.deadlines.oracle import Option
    from headwater.compression.bundle import Bundle
    from headwater.simulations.samples import Sample


class Pictures:
    """Test pictures in a fixed order, and what is known of them."""

    def __init__(self, bundle: Bundle, source: str, count: int, folder: Path) -> None:
        """Write up to `count` test pictures of a data set to a folder and code each in every mode."""
        self.task = bundle.manifest.tasks[0]
        """The bundle's first, which is asked for."""
        self.samples: list[Sample] = take_samples(source, self.task, count, folder)
        self._bundle = bundle
        self._coder = cache(bundle.coder)
        self._tails = cache(partial(Tails, bundle))
        self._exit = cache(partial(LocalExit, bundle))
        self._network = cache(partial(session, bundle.read("local.onnx")))
        head, coder, groups = Head(bundle), bundle.coder(), len(bundle.tables.group_ends)
        self._images = [bundle.manifest.input.apply(sample.load()) for sample in self.samples]
        self._latents = [
            {width: head.latent(image, width) for width in bundle.manifest.widths} for image in self._images
        ]
        self._payloads = [
            [coder.encode(head.quantise(latents[mode.width], mode.index), mode.index).payload for mode in head.modes]
            for latents in self._latents
        ]
        codec = bundle.frames()
        self._opinions = [self._said(latents) for latents in self._latents]
        self.sizes: NDArray[np.int64] = np.array(
            [
                [
                    len(codec.pack(Frame(mode, groups, payload, said[head.modes[mode].width])))
                    for mode, payload in enumerate(payloads)
                ]
                for payloads, said in zip(self._payloads, self._opinions, strict=True)
            ]
        )
        """Bytes of each picture's frame in each mode, header included, [N, M]."""
        self.right = cache(self._right)
        """Whether an option's answer to a picture, by its number, is right."""

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def has_exit(self) -> bool:
        """Whether the local exit answers the task that is asked for."""
        exit_ = self._bundle.manifest.exit
        return exit_ is not None and exit_.task == self.task.name

    def _said(self, latents: Mapping[float, NDArray[np.float32]]) -> dict[float, int | None]:
        """The device's opinion of a picture, by width."""
        if not self.has_exit:
            return dict.fromkeys(latents)
        widths, tables = self._bundle.manifest.widths, self._bundle.exits
        return {
            width: tables.opinion(self._exit().logits(latent, widths.index(width)), widths.index(width))
            for width, latent in latents.items()
        }

    def _right(self, option: Option, number: int) -> bool:
        answer = {"send": self._server, "local": self._local, "whole": self._whole}[option.action]
        return self.task.labels[int(answer(number, option.mode).argmax())] == self.samples[number].label

    def _server(self, number: int, mode: int) -> NDArray[np.float32]:
        payload, groups = self._payloads[number][mode], len(self._bundle.tables.group_ends)
        latents, _ = self._coder().decode_batch([payload], [mode], [groups])
        said = self._opinions[number][self._bundle.manifest.modes[mode].width]
        (scores,) = self._tails().run(latents, np.array([mode]), [0], [said])
        assert scores is not None
        return np.asarray(scores[self.task.name])

    def _local(self, number: int, mode: int) -> NDArray[np.float32]:
        manifest = self._bundle.manifest
        width = manifest.modes[mode].width
        return self._exit().logits(self._latents[number][width], manifest.widths.index(width))

    def _whole(self, number: int, _: int) -> NDArray[np.float32]:
        (logits,) = self._network().run(("logits",), {"image": self._images[number][np.newaxis]})
        return np.asarray(logits[0])
