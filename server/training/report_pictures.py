"""What ``reconstruct`` makes of some held-out pictures, beside them, for ``report.html``: PSNR says little to the eye.

Shown are the gains of the widest width, coarsest first, so that a row reads as what more bytes buy.
"""

from __future__ import annotations

import base64
import html
from typing import TYPE_CHECKING

from headwater.compression.image import to_png
from headwater.server.charts import Chart, section

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from headwater.compression.manifest import Manifest
    from headwater.server.training.build import Built

STYLE = ".pictures img { width: 128px; image-rendering: auto; display: block }"


def picture_sections(built: Built, originals: NDArray[np.uint8]) -> list[str]:
    """For each task that gives pictures a chart of the PSNR, and pictures of those that were trained in this run."""
    manifest, parts = built.bundle.manifest, []
    for name in manifest.modes[0].psnr_db:
        shown = _table(built, name, originals) if name in built.runs[0].pictures else ""
        parts.append(section(f"Bytes and likeness: {name}", _rate_psnr(manifest, name), shown))
    return parts


def _rate_psnr(manifest: Manifest, task: str) -> str:
    chart = Chart("bytes a frame, header included", "PSNR, dB", log_x=True)
    for width in manifest.widths:
        modes = [mode for mode in manifest.modes if mode.width == width]
        chart.line(f"width {width:g}", [mode.mean_bytes for mode in modes], [mode.psnr_db[task] for mode in modes])
    return chart.svg(f"mean PSNR of {task} over bytes a frame, a line for each width")


def _table(built: Built, task: str, originals: NDArray[np.uint8]) -> str:
    """A row a picture: the original, then what each gain gives back."""
    manifest, rows = built.bundle.manifest, []
    modes = [mode for mode in manifest.modes if mode.width == manifest.widths[-1]]
    heads = ["original", *(f"gain {mode.gain}, {mode.mean_bytes:.0f} B" for mode in modes)]
    for row, original in enumerate(originals[: len(built.runs[0].pictures[task])]):
        pictures = [original, *(built.runs[mode.index].pictures[task][row] for mode in modes)]
        rows.append("".join(f"<td>{_image(head, each)}</td>" for head, each in zip(heads, pictures, strict=True)))
    top = "".join(f'<th scope="col">{html.escape(head)}</th>' for head in heads)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<table class="pictures"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'


def _image(text: str, pixels: NDArray[np.uint8]) -> str:
    data = base64.b64encode(to_png(pixels)).decode()
    return f'<img alt="{html.escape(text)}" src="data:image/png;base64,{data}">'
