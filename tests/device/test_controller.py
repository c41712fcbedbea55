"""What every controller must do, and where the rule goes on links that a test makes up."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from headwater.compression.bundle import Bundle
from headwater.compression.errors import BundleError
from headwater.compression.manifest import Mode
from headwater.device.controller import (
    OVERHEAD_BYTES,
    Controller,
    Decision,
    FixedController,
    Observation,
    RateController,
    Situation,
)

# Four modes from 30 bytes to 3 kB, the larger the more accurate; the wide head takes 8 ms, the narrow one 2.
MODES = tuple(
    Mode(
        index=index,
        width=width,
        gain=gain,
        channels=4,
        mean_bytes=size,
        p95_bytes=size * 1.2,
        accuracy={"a": accuracy},
        balanced_accuracy={"a": accuracy},
        auroc={"a": accuracy},
        head_macs=int(width * 1000),
        head_parameters=1,
    )
    for index, (width, gain, size, accuracy) in enumerate(
        [(0.25, 0, 30.0, 0.80), (0.25, 1, 300.0, 0.83), (1.0, 0, 900.0, 0.86), (1.0, 1, 3000.0, 0.87)]
    )
)
HEAD_MS = {0.25: 2.0, 1.0: 8.0}


class Wire:
    """A link of a rate and a round trip: what a frame of a mode takes on it."""

    def __init__(
        self, bytes_per_ms: float, round_trip_ms: float, jitter_ms: float = 0.0, server_ms: float = 2.0
    ) -> None:
        self.bytes_per_ms, self.round_trip_ms = bytes_per_ms, round_trip_ms
        self.jitter_ms, self.server_ms = jitter_ms, server_ms
        self.rng = random.Random(0)

    def frame(self, mode: int) -> Observation:
        size = MODES[mode].mean_bytes * self.rng.uniform(0.8, 1.2)
        network_ms = self.round_trip_ms + (size + OVERHEAD_BYTES) / self.bytes_per_ms
        network_ms += self.rng.uniform(0, self.jitter_ms)
        return Observation(
            mode=mode,
            sent_bytes=int(size),
            prepare_ms=0.0,
            head_ms=HEAD_MS[MODES[mode].width],
            code_ms=0.0,
            outcome="answered",
            round_trip_ms=network_ms + self.server_ms,
            server_ms=self.server_ms,
            batch=1,
        )

    def run(self, controller: Controller, frames: int, situation: Situation) -> list[tuple[int, float]]:
        """Mode and whole time of each frame."""
        taken = []
        for _ in range(frames):
            mode = controller.choose(situation).mode
            observation = self.frame(mode)
            assert observation.round_trip_ms is not None
            taken.append((mode, observation.head_ms + observation.round_trip_ms))
            controller.observe(observation)
        return taken


EVERY: list[Callable[[], Controller]] = [lambda: FixedController(2), lambda: RateController(MODES)]


@pytest.mark.parametrize("make", EVERY)
class TestEveryController:
    def test_has_a_decision_for_any_situation(self, make: Callable[[], Controller]) -> None:
        rng = random.Random(1)
        controller = make()
        for _ in range(300):
            situation = Situation(
                deadline_ms=rng.choice([None, 0.5, 100.0]),
                age_ms=rng.choice([0.0, 1e6]),
                interval_ms=rng.choice([None, 0.1, 1000.0]),
                frames_unanswered=rng.randrange(9),
                bytes_unanswered=rng.randrange(9000),
                connected=rng.random() < 0.5,
                max_bytes=rng.choice([None, 10, 500]),
                max_groups=rng.choice([None, 1]),
            )
            decision = controller.choose(situation)
            assert 0 <= decision.mode < len(MODES)
            assert decision.groups == situation.max_groups
            observation = Wire(rng.choice([0.1, 1e9]), rng.choice([0.0, 500.0])).frame(decision.mode)
            if rng.random() < 0.3:
                observation = replace(observation, outcome=rng.choice(["expired", "failed"]), round_trip_ms=None)
            controller.observe(observation)

    def test_is_pure(self, make: Callable[[], Controller]) -> None:
        situation = Situation(deadline_ms=300)
        runs = [Wire(10, 40, jitter_ms=20).run(make(), 60, situation) for _ in range(2)]
        assert runs[0] == runs[1]


class TestFixed:
    def test_named_by_width_and_gain(self, tiny_bundle: Bundle) -> None:
        of = FixedController.of
        modes = tiny_bundle.manifest.modes
        assert modes[of(tiny_bundle, 0.5, 2).mode].width == 0.5
        assert of(tiny_bundle).mode == len(modes) - 1
        assert (modes[of(tiny_bundle, 0.25).mode].width, modes[of(tiny_bundle, 0.25).mode].gain) == (0.25, 3)
        assert (modes[of(tiny_bundle, None, 0).mode].width, modes[of(tiny_bundle, None, 0).mode].gain) == (1.0, 0)
        with pytest.raises(BundleError, match=r"widths: 0\.25, 0\.5, 0\.75, 1"):
            of(tiny_bundle, 0.3, 0)

    def test_sends_fewer_groups_if_the_server_wishes(self) -> None:
        assert FixedController(1).choose(Situation(max_groups=2)) == Decision(1, 2)


class TestRate:
    def test_begins_with_the_fewest_bytes(self) -> None:
        assert RateController(MODES).choose(Situation()).mode == 0

    def test_climbs_to_the_best_on_a_fast_link(self) -> None:
        taken = Wire(10_000, 5, jitter_ms=2).run(RateController(MODES), 40, Situation(deadline_ms=300))
        assert [mode for mode, _ in taken[-20:]] == [3] * 20

    def test_stays_within_the_deadline_on_a_slow_link(self) -> None:
        wire = Wire(bytes_per_ms=5.0, round_trip_ms=50)  # 40 kbit/s: 900 bytes take 246 ms, 3000 take 666
        taken = wire.run(RateController(MODES), 100, Situation(deadline_ms=400))
        late = sum(time_ms > 400 for _, time_ms in taken)
        assert late <= 2
        assert max(mode for mode, _ in taken) == 2
        assert [mode for mode, _ in taken].count(2) > 50

    def test_never_tries_the_impossible_on_a_very_slow_link(self) -> None:
        wire = Wire(bytes_per_ms=0.625, round_trip_ms=20)  # 5 kbit/s
        taken = wire.run(RateController(MODES), 60, Situation(deadline_ms=400))
        assert {mode for mode, _ in taken} == {0}

    def test_jitter_does_not_hide_a_fast_link(self) -> None:
        taken = Wire(10_000, 5, jitter_ms=30).run(RateController(MODES), 150, Situation(deadline_ms=100))
        assert [mode for mode, _ in taken[-50:]].count(3) > 45
        assert not any(time_ms > 100 for _, time_ms in taken)

    def test_without_a_deadline_takes_what_the_rate_has_room_for(self) -> None:
        wire = Wire(bytes_per_ms=5.0, round_trip_ms=50)
        slow = wire.run(RateController(MODES), 60, Situation(interval_ms=100))
        free = wire.run(RateController(MODES), 60, Situation())
        assert max(mode for mode, _ in slow[-20:]) == 1  # 300 bytes take 76 ms, 900 take 196
        assert free[-1][0] == 3

    def test_an_old_picture_gets_what_still_arrives(self) -> None:
        controller = RateController(MODES)
        wire = Wire(bytes_per_ms=5.0, round_trip_ms=50)
        wire.run(controller, 40, Situation(deadline_ms=400))
        assert controller.choose(Situation(deadline_ms=400, age_ms=230)).mode < 2
        assert controller.choose(Situation(deadline_ms=400, bytes_unanswered=1500)).mode < 2

    def test_a_drop_of_the_rate_is_believed(self) -> None:
        controller = RateController(MODES)
        situation = Situation(deadline_ms=300)
        assert Wire(1000, 20).run(controller, 40, situation)[-1][0] == 3
        after = Wire(10, 20).run(controller, 20, situation)  # 3000 bytes take 328 ms
        assert [mode for mode, _ in after[-10:]].count(3) == 0

    def test_the_head_of_another_width_is_reckoned_by_its_work(self) -> None:
        controller = RateController(MODES)
        Wire(1e6, 1).run(controller, 5, Situation(deadline_ms=9, max_bytes=300))
        # The narrow head takes 2 ms, so four times the work may be 8 ms, which 9 ms has no room for.
        assert controller.choose(Situation(deadline_ms=9)).mode < 2

    def test_heeds_the_servers_wish(self) -> None:
        controller = RateController(MODES)
        Wire(10_000, 5).run(controller, 40, Situation())
        assert controller.choose(Situation(max_bytes=300)).mode == 1

    def test_when_nothing_fits_takes_the_quickest(self) -> None:
        controller = RateController(MODES)
        Wire(5.0, 50).run(controller, 40, Situation(deadline_ms=1))
        assert controller.choose(Situation(deadline_ms=1)).mode == 0

    def test_what_the_device_answers_itself_says_only_what_the_head_takes(self) -> None:
        wire, situation = Wire(10_000, 5), Situation(deadline_ms=100)
        alone, mixed = RateController(MODES), RateController(MODES)
        for _ in range(60):
            mode = alone.choose(situation).mode
            assert mixed.choose(situation).mode == mode
            sent = wire.frame(mode)
            local = replace(sent, outcome="local", sent_bytes=0, round_trip_ms=None, server_ms=0.0, batch=0)
            alone.observe(sent)
            mixed.observe(local)
            mixed.observe(sent)
        slow = replace(local, exit_ms=150.0)
        for _ in range(20):
            mixed.observe(slow)
        assert MODES[alone.choose(situation).mode].width == 1.0
        assert MODES[mixed.choose(situation).mode].width == 0.25, "the exit's time counts"
