"""What is left of a mode's accuracy when its frames are cut after their first channel groups.

Each cut is measured as it would travel: coded, cut, framed, decoded, answered. That costs one more pass of the decoder
and the tails for each; the heads, which cost most, are not run again. Coding again is a fiftieth of a pass.

Legend: G channel groups.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from headwater.compression.manifest import Cut
from headwater.server.training.metrics import score

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from headwater.compression.manifest import Mode
    from headwater.server.training.measure import Bench


def with_cuts(mode: Mode, bench: Bench, labels: Mapping[str, NDArray[np.int64]]) -> Mode:
    """The mode with the bytes and accuracy of its cuts to 1 .. G - 1 groups.

    Args:
        mode: of the bench's bundle; what it says of other tasks stays.
        bench: the held-out images; of its tasks those with labels are measured.
        labels: of the images, by task.
    """
    known = {cut.groups: cut.accuracy for cut in mode.cuts}
    labelled = bench.only([task for task in bench.tasks if task.labels])
    cuts = []
    for groups in range(1, len(bench.bundle.tables.group_ends)):
        run = labelled.run(mode, groups)
        found = {task: round(score(logits, labels[task]).accuracy, 5) for task, logits in run.logits.items()}
        cuts.append(Cut(groups, round(float(run.sizes.mean()), 2), {**known.get(groups, {}), **found}))
    return dataclasses.replace(mode, cuts=tuple(cuts))
