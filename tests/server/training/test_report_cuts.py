"""The report's chart and table of cut frames."""

from __future__ import annotations

import dataclasses

import pytest

from headwater.compression.manifest import Cut, Manifest
from headwater.server.training.report_cuts import chosen, cuts_section, points
from tests import tiny


def measured(manifest: Manifest) -> Manifest:
    """The manifest with cuts that say which mode and how many groups they are of."""
    modes = [
        dataclasses.replace(
            mode,
            cuts=tuple(
                Cut(groups, 10.0 * groups, {task.name: groups / 10 + mode.index / 1000 for task in manifest.tasks})
                for groups in (1, 2)
            ),
        )
        for mode in manifest.modes
    ]
    return dataclasses.replace(manifest, modes=tuple(modes))


def test_the_finest_mode_of_each_width_is_shown_with_its_cuts_and_itself() -> None:
    manifest = measured(tiny.bundle().manifest)
    assert [(mode.width, mode.gain) for mode in chosen(manifest, "shape")] == [(0.25, 3), (0.5, 3), (0.75, 3), (1.0, 3)]
    last = manifest.modes[-1]
    sizes, accuracies = zip(*points(last, "shape"), strict=True)
    assert sizes == (10.0, 20.0, last.mean_bytes)
    assert accuracies == pytest.approx((0.115, 0.215, last.accuracy["shape"]))
    shown = cuts_section(manifest, "shape")
    assert shown.count("<polyline") == 4
    assert "<td>15</td><td>1</td><td>3</td><td>11.5% at 10 B</td><td>21.5% at 20 B</td>" in shown
    assert f"<td>{last.accuracy['shape']:.1%} at {last.mean_bytes:.0f} B</td>" in shown


def test_a_bundle_without_measured_cuts_has_no_such_section() -> None:
    bare = dataclasses.replace(
        tiny.bundle().manifest,
        modes=tuple(dataclasses.replace(mode, cuts=()) for mode in tiny.bundle().manifest.modes),
    )
    assert cuts_section(bare, "shape") == ""
    assert cuts_section(measured(bare), "a_task_that_was_added") == ""
