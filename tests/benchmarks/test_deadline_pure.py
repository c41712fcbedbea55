"""The deadline benchmark's arithmetic: links, the oracle that knows them, and the rule of those who plan on means."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.deadlines import links
from benchmarks.deadlines.oracle import Costs, Option, Oracle
from benchmarks.deadlines.peers import CycleController, LocalController, MeanController
from headwater.device.control.controller import OVERHEAD_BYTES, Decision, Observation, Situation
from headwater.simulations.trace import LinkTrace, Trace

if TYPE_CHECKING:
    from headwater.compression.bundle import Bundle

SEND_SMALL = Option("send", 0, 0.80, 0.01)
SEND_LARGE = Option("send", 1, 0.90, 0.01)
LOCAL = Option("local", 0, 0.70, 0.01)
SIZES = {0: 100, 1: 1000}
COSTS = Costs(server_s=0.02, up_bytes=0, down_bytes=100)


def frames(count: int, fps: float = 5) -> list[tuple[float, dict[int, int]]]:
    return [(index / fps, SIZES) for index in range(count)]


def actions(link: LinkTrace, deadline_s: float, count: int = 3, fps: float = 5) -> list[object]:
    chosen = Oracle.choose(link, [LOCAL, SEND_SMALL, SEND_LARGE], COSTS, frames(count, fps), deadline_s)
    return [one.option for one in chosen]


def test_there_are_links_enough_and_each_seed_gives_another_stretch() -> None:
    every = links.generated()
    assert len({link.name for link in every}) == len(every) >= 12
    for link in every:
        again, other = link.make(1), link.make(2)
        assert [again.up.bits_per_s(t) for t in range(30)] == [link.make(1).up.bits_per_s(t) for t in range(30)]
        moves = len({again.up.bits_per_s(t / 4) for t in range(240)}) > 1
        same = [other.up.bits_per_s(t / 4) for t in range(240)] == [again.up.bits_per_s(t / 4) for t in range(240)]
        assert same is (not moves or link.drops)


def test_drops_are_tenfold_and_where_they_are_said_to_be() -> None:
    dropping = [link.make(0).up for link in links.generated() if link.drops]
    assert len(dropping) == 3
    for trace in dropping:
        before, after = (trace.bits_per_s(links.FIRST_DROP_S + shift) for shift in (-0.01, 0.01))
        assert before == pytest.approx(10 * after)
    assert [links.drop_at(time_s) for time_s in (0, 2.9, 3, 7.9, 8, 12.9, 13)] == [None, None, 0, 0, None, None, 1]


def test_recordings_come_at_each_factor(tmp_path: Path) -> None:
    (tmp_path / "road.up").write_text("".join(f"{ms}\n" for ms in range(0, 60_000, 10)))
    found = links.recorded(tmp_path)
    assert [link.name for link in found] == ["road x1", "road x1/20", "road x1/100"]
    rates = [link.make(3).up.mean_bits_per_s for link in found]
    assert rates == pytest.approx([1.2e6, 6e4, 1.2e4], rel=0.01)


def test_the_oracle_takes_the_most_accurate_that_is_in_time() -> None:
    # 8 kbit/s: the large frame takes 1 s up, the small one 0.1 s; 0.1 s back, 0.03 s for device and server.
    link = LinkTrace.constant("slow", 8_000)
    assert actions(link, 2.0, fps=0.5) == [SEND_LARGE] * 3
    assert actions(link, 1.0, fps=0.5) == [SEND_SMALL] * 3
    assert actions(link, 0.2, fps=0.5) == [LOCAL] * 3
    assert actions(link, 0.005, fps=0.5) == [None] * 3


def test_the_oracle_s_latency_is_the_sum_of_the_way() -> None:
    link = LinkTrace("link", Trace.constant(8_000), Trace.constant(80_000), 0.05, 0.03)
    (chosen,) = Oracle.choose(link, [SEND_SMALL], COSTS, frames(1), 1.0)
    assert chosen.latency_s == pytest.approx(0.01 + 0.1 + 0.05 + 0.02 + 0.01 + 0.03)
    assert chosen.size == 100


def test_the_oracle_s_frames_wait_for_its_own_earlier_ones() -> None:
    # At 5 frames a second the way up is busy for a second with the first large one.
    link = LinkTrace.constant("slow", 8_000)
    chosen = Oracle.choose(link, [LOCAL, SEND_SMALL, SEND_LARGE], COSTS, frames(7), 1.2)
    assert [one.option for one in chosen[:3]] == [SEND_LARGE, SEND_SMALL, SEND_SMALL]
    assert chosen[1].latency_s == pytest.approx(1.01 + 0.1 + 0.02 + 0.1 - 0.2)


def test_the_oracle_sees_a_black_out_coming() -> None:
    link = LinkTrace("gap", Trace.steps([(1.05, 8e6), (2, 0)]), Trace.constant(8e6))
    chosen = Oracle.choose(link, [LOCAL, SEND_LARGE], COSTS, [(0.9, SIZES), (1.045, SIZES), (2.0, SIZES)], 0.3)
    assert [one.option for one in chosen] == [SEND_LARGE, LOCAL, LOCAL]


def test_of_equal_accuracy_the_oracle_takes_fewer_bytes() -> None:
    twin = Option("send", 1, SEND_SMALL.accuracy, 0.001)
    (chosen,) = Oracle.choose(LinkTrace.constant("wide", 8e6), [twin, SEND_SMALL], COSTS, frames(1), 1.0)
    assert chosen.option == SEND_SMALL


def answered(size: int, round_trip_ms: float, server_ms: float = 0.0) -> Observation:
    return Observation(0, size - OVERHEAD_BYTES, 1, 1, 1, "answered", round_trip_ms=round_trip_ms, server_ms=server_ms)


def test_the_mean_controller_climbs_with_its_mean_and_forgets_the_server(tiny_bundle: Bundle) -> None:
    modes = tiny_bundle.manifest.modes
    encode_ms = dict.fromkeys(tiny_bundle.manifest.widths, 5.0)
    controller = MeanController(modes, encode_ms, deadline_ms=100)
    fewest = min(modes, key=lambda mode: mode.mean_bytes)
    assert controller.choose(Situation()).mode == fewest.index
    controller.observe(answered(1000, 30, server_ms=20))  # 100 bytes a ms
    best = max(modes, key=lambda mode: (sum(mode.accuracy.values()), -mode.mean_bytes))
    assert controller.choose(Situation()).mode == best.index
    controller.observe(answered(1000, 10_000))  # 0.1 bytes a ms: the mean is 60
    assert controller.choose(Situation()).mode == best.index
    for _ in range(20):
        controller.observe(answered(100, 1_000))
    assert controller.choose(Situation()).mode == fewest.index


def test_a_frame_without_an_answer_tells_the_mean_controller_too(tiny_bundle: Bundle) -> None:
    modes = tiny_bundle.manifest.modes
    controller = MeanController(modes, dict.fromkeys(tiny_bundle.manifest.widths, 5.0), deadline_ms=100)
    controller.observe(answered(1000, 10))
    for _ in range(20):
        controller.observe(Observation(0, 20, 1, 1, 1, "expired", waited_ms=10_000))
    assert controller.choose(Situation()).mode == min(modes, key=lambda mode: mode.mean_bytes).index


def test_the_simple_ones_do_as_they_are_named() -> None:
    assert LocalController(3).choose(Situation()) == Decision(3, action="local")
    cycle = CycleController([Decision(1), Decision(2)])
    assert [cycle.choose(Situation()).mode for _ in range(3)] == [1, 2, 1]
