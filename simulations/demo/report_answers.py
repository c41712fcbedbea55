"""The part of the demo's report that shows answers: confusion matrices and pictures."""

from __future__ import annotations

import base64
import html
import io
from collections import Counter
from typing import TYPE_CHECKING

from headwater.server.charts import section

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.device.record import FrameRecord
    from headwater.simulations.demo.run import Run
    from headwater.simulations.demo.tally import Tally
    from headwater.simulations.samples import Sample

PICTURES = 6
"""Right answers that are shown, and as many wrong ones."""
MANY_CLASSES = 4
"""From here on one matrix, not one a link, is enough to read."""

STYLE = """
.shots { display: grid; grid-template-columns: repeat(6, minmax(0, 1fr)); gap: .9rem; margin: .6rem 0 1.4rem }
@media (max-width: 48rem) { .shots { grid-template-columns: repeat(3, minmax(0, 1fr)) } }
.shots img { display: block; width: 100%; aspect-ratio: 1; object-fit: cover; border-radius: 6px }
.shots figcaption { margin-top: .35rem; line-height: 1.35 } .shots b { color: var(--ink) }
.yes { color: var(--k2) } .no { color: var(--k1) }
.grids { display: flex; flex-wrap: wrap; gap: 1.2rem 2.4rem } .grids h3 { margin: 0 } .grids table { margin-top: .2rem }
td.heat { min-width: 3.4rem; line-height: 1.2 } td.heat small { display: block }
"""


def confusions(run: Run) -> str:
    """A matrix of true against answered classes for each link, or for the one with most frames."""
    task = run.bundle.manifest.tasks[0]
    shown = [tally for tally in run.tallies if tally.answered]
    if len(task.labels) >= MANY_CLASSES:
        shown = [busiest(run)]
    matrices = "".join(_confusion(tally, task.labels) for tally in shown)
    label, count = Counter(sample.label for sample in run.samples).most_common(1)[0]
    note = (
        f"Task {task.name}: a row for each true class, a column for each answer; shares are of the row. "
        f"Who always answered {label} would be right in {count / len(run.samples):.1%} of the pictures."
    )
    return section("Right and wrong", f'<div class="grids">{matrices}</div>', note=note)


def pictures(run: Run) -> str:
    """Pictures with their answers, right and wrong ones."""
    tally = busiest(run)
    in_order = sorted(tally.answered, key=lambda record: tally.samples[record.name].index)
    blocks = []
    for title, wanted in (("Right", True), ("Wrong", False)):
        records = _each_class_in_turn([record for record in in_order if tally.right(record) is wanted], tally)
        shots = "".join(_shot(record, tally) for record in records)
        blocks.append(f"<h3>{title}</h3>" + (f'<div class="shots">{shots}</div>' if shots else "<p>None.</p>"))
    note = f"From {tally.title}: of each class in turn, the first ones in the order in which they were sent."
    return section("Pictures and answers", *blocks, note=note)


def busiest(run: Run) -> Tally:
    """The link with the most answers."""
    return max(run.tallies, key=lambda tally: len(tally.answered))


def embedded(sample: Sample, side: int) -> str:
    """A picture of at most `side` pixels a side, as a URL that holds it."""
    picture = sample.load()
    picture = picture.convert("L" if picture.mode in {"1", "L", "I;16"} else "RGB")
    picture.thumbnail((side, side))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _confusion(tally: Tally, labels: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{html.escape(label)}</th>' for label in labels)
    rows = []
    for label, counts in zip(labels, tally.confusion(labels), strict=True):
        total = max(int(counts.sum()), 1)
        cells = "".join(_heat(int(count), int(count) / total) for count in counts)
        rows.append(f'<tr><th scope="row">{html.escape(label)}</th>{cells}</tr>')
    return (
        f"<div><h3>{html.escape(tally.title)}</h3><table><thead><tr><th>true \\ answered</th>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _heat(count: int, share: float) -> str:
    # At most 55 % of the colour: the text stays readable on it in both themes.
    style = f"background: color-mix(in srgb, var(--k0) {55 * share:.0f}%, transparent)"
    return f'<td class="heat" style="{style}">{count}<small>{f"{share:.0%}" if count else "&#8202;"}</small></td>'


def _each_class_in_turn(records: Sequence[FrameRecord], tally: Tally) -> list[FrameRecord]:
    """The first record of every true class, then the second ones, up to :data:`PICTURES`."""
    seen: dict[str, int] = {}
    ranked = []
    for record in records:
        rank = seen[tally.truth(record)] = seen.get(tally.truth(record), -1) + 1
        ranked.append((rank, record))
    return [record for _, record in sorted(ranked, key=lambda pair: pair[0])[:PICTURES]]


def _shot(record: FrameRecord, tally: Tally) -> str:
    sample, result = tally.samples[record.name], record[tally.task]
    mark = '<span class="yes">✓</span>' if tally.right(record) else '<span class="no">✗</span>'
    answer, truth, name = html.escape(result.label), html.escape(sample.label), html.escape(sample.name)
    return (
        f'<figure><img src="{embedded(sample, 192)}" alt="{name}: {truth}">'
        f"<figcaption>{mark} <b>{answer}</b> {result.score:.0%}<br>truth: {truth}<br>{record.bytes} bytes</figcaption>"
        "</figure>"
    )
