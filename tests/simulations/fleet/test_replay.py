"""The twin's replay of a run of which everything is known, times included: what comes out can be reckoned by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from headwater.simulations.fleet.calibration import Calibration, Frames, Wire
from headwater.simulations.fleet.content import Content
from headwater.simulations.fleet.replay import Replay, compare, settings_of
from headwater.simulations.fleet.stage import Played
from headwater.simulations.fleet.station import without_exit
from headwater.simulations.fleet.traffic import Traffic
from headwater.simulations.fleet.wire import ACK_BYTES, frame_bytes
from headwater.simulations.trace import LinkTrace, Trace
from tests import tiny

if TYPE_CHECKING:
    from pathlib import Path

    from headwater.compression.bundle import Bundle
    from headwater.simulations.fleet.comparing import Figures

OWN, PREPARE, HEAD, EXIT, CODE, HOPS, SERVE = 2.0, 1.0, 4.0, 0.5, 0.25, 3.0, 5.0
ANSWER = 60
LINK = LinkTrace("test", Trace.constant(80e3), Trace.constant(160e3), 0.02, 0.03)  # 10 and 20 bytes a ms


def calibration(bundle: Bundle) -> Calibration:
    """Every frame takes the same."""
    row = (OWN, PREPARE, HEAD, EXIT, CODE, HOPS, SERVE)
    here = (OWN, PREPARE, HEAD, EXIT, 0.0, 0.0, 0.0)
    widths = bundle.manifest.widths
    sent = [Frames.of(width, "send", 5.0, [row]) for width in widths]
    local = [Frames.of(width, "local", 5.0, [here]) for width in widths]
    return Calibration(
        bundle=bundle.short_id,
        machine="one that is always as quick",
        made="2026-11-22T01:00:00+00:00",
        task="shape",
        wire=Wire(383, 208, 51, 52, 90, ANSWER),
        slack_ms=20.0,
        batch_ms={1: 5.0, 8: 20.0},
        server_start_s=1.0,
        device_start_s=1.0,
        frames=(*sent, *local),
    )


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    paths = [folder / f"{seed}.png" for seed in range(6)]
    for seed, path in enumerate(paths):
        Image.fromarray(tiny.image(seed)[0]).save(path)
    return paths


def traffic(link: LinkTrace = LINK, **more: object) -> Traffic:
    given: dict[str, object] = {"fps": 2.0, "seconds": 4.0, "settings": {"width": 0.5, "gain": 2}, **more}
    return Traffic("test", link, **given)  # type: ignore[arg-type]


def replayed(bundle: Bundle, pictures: list[Path], run: Traffic) -> tuple[Figures, Content, Played]:
    played = Played(run, (), tuple(tuple(run.pictures(at, len(pictures))) for at in range(run.devices)))
    shown = bundle if run.exit else without_exit(bundle)
    content = Content(shown, settings_of(run, "shape"), pictures)
    return Replay(played, calibration(bundle), shown, content).run(seed=1), content, played


def test_a_frame_takes_its_stages_and_its_bytes_on_the_link(tiny_bundle: Bundle, pictures: list[Path]) -> None:
    found, content, played = replayed(tiny_bundle, pictures, traffic())
    mode = tiny_bundle.mode(width=0.5, gain=2).index
    sizes = [content.size(number, mode) for number in played.pictures[0]]
    up = [frame_bytes(size, number, 0, ("shape",)) + ACK_BYTES for number, size in enumerate(sizes, 1)]
    stages_ms = OWN + PREPARE + HEAD + CODE + HOPS + SERVE  # no exit runs without a deadline
    expected_ms = [stages_ms + each / 10 + 20 + (ANSWER + ACK_BYTES) / 20 + 30 for each in up]
    assert found.latency_ms == pytest.approx(expected_ms)
    assert found.up_bytes == sum(up)
    assert found.down_bytes == len(up) * (ANSWER + ACK_BYTES)
    assert found.sources["server"] == found.frames == 8
    assert found.missed == 0


def test_a_link_that_carries_nothing_makes_the_exit_step_in_as_early_as_was_measured(
    tiny_bundle: Bundle, pictures: list[Path]
) -> None:
    dead = LinkTrace("dead", Trace.constant(0), Trace.constant(0))
    found, _, _ = replayed(tiny_bundle, pictures, traffic(dead, deadline_ms=300))
    assert found.latency_ms == pytest.approx([280.0] * 8)
    assert (found.sources["exit"], found.missed) == (8, 0)


def test_without_an_exit_what_is_late_is_missed(tiny_bundle: Bundle, pictures: list[Path]) -> None:
    stairs = LinkTrace("stairs", Trace.steps([(2.25, 80e3), (8.0, 0)]), Trace.constant(1e6))
    found, _, _ = replayed(tiny_bundle, pictures, traffic(stairs, deadline_ms=300, exit=False))
    assert found.sources["server"] == 4
    assert (found.sources["nobody"], found.missed) == (4, 4)


def test_several_devices_have_moments_pictures_and_links_of_their_own(
    tiny_bundle: Bundle, pictures: list[Path]
) -> None:
    run = traffic(devices=3, deadline_ms=500, settings={})
    found, _, played = replayed(tiny_bundle, pictures, run)
    assert found.frames == 24
    assert len(set(played.pictures)) == 3
    assert len({run.due_s(at) for at in range(3)}) == 3


def test_the_same_luck_gives_the_same(tiny_bundle: Bundle, pictures: list[Path]) -> None:
    run = traffic(devices=2, deadline_ms=300, settings={})
    (one, *_), (other, *_) = (replayed(tiny_bundle, pictures, run) for _ in range(2))
    assert np.array_equal(one.latency_ms, other.latency_ms)


def test_the_first_picture_of_a_width_finds_a_cold_head(tiny_bundle: Bundle, pictures: list[Path]) -> None:
    run, known = traffic(), calibration(tiny_bundle)
    cold = Calibration(**{**vars(known), "frames": tuple(replace(each, cold_ms=7.0) for each in known.frames)})
    played = Played(run, (), (tuple(run.pictures(0, len(pictures))),))
    content = Content(tiny_bundle, settings_of(run, "shape"), pictures)
    warm_ms, cold_ms = (Replay(played, which, tiny_bundle, content).run(seed=1).latency_ms for which in (known, cold))
    assert cold_ms - warm_ms == pytest.approx([7.0] + [0.0] * (run.frames - 1))


def test_what_was_not_measured_is_no_replay(tiny_bundle: Bundle, pictures: list[Path]) -> None:
    known = calibration(tiny_bundle)
    narrow = Calibration(**{**vars(known), "frames": known.frames[:1]})
    run = traffic()
    played = Played(run, (), ((0,) * run.frames,))
    with pytest.raises(Exception, match=r"nothing was measured of send at width 0\.5"):
        compare([played], narrow, tiny_bundle, pictures)
