"""The compiled arithmetic and its plain Python twin: the same to the last bit, whatever comes."""

from __future__ import annotations

import math
import pickle  # noqa: TID251 - that it can be, for processes that are spawned
import subprocess
import sys
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import pytest

from headwater.device.control import _ways
from headwater.device.control.controller import Decision, Observation, Situation
from headwater.device.control.deadline import DeadlineController
from headwater.device.control.estimates import DeviceEstimate, RoundTrip, Sent, device_estimate, round_trip
from headwater.device.control.kernel import Implementation, margin_type
from headwater.device.control.margin import MEMORY, Margin
from headwater.device.control.offers import Offers
from headwater.device.control.options import Option
from headwater.device.control.policy import Cost, Policy
from headwater.device.control.ways import Fear, Room, Wanted, Way, Ways, Work
from headwater.simulations.trace import LinkTrace, Trace
from headwater.simulations.twin import Device, Twin
from tests.device.control.twins import EXIT, MODES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.device.control.options import Table
    from headwater.device.control.ways import Exits, Key

WIDTHS = [0.25, 0.5, 0.75, 1.0]
SEEDS = range(400)


class TestMargin:
    @pytest.mark.parametrize("seed", range(20))
    def test_is_the_same(self, seed: int) -> None:
        rng, level = Random(seed), 0.5 + seed / 50
        plain, fast = Margin(level), _ways.Margin(level)
        for _ in range(4 * MEMORY):
            error = rng.choice([1.0, 0.5, 2.0, rng.lognormvariate(0, 0.5)])  # equal ones, too
            share, beyond = rng.random(), rng.choice([0.0, rng.lognormvariate(0, 1)])
            assert fast.upper == plain.upper
            assert fast.noise == plain.noise
            assert fast.quantile(share) == plain.quantile(share)
            assert fast.chance(error) == plain.chance(error)
            assert fast.chance(error, beyond) == plain.chance(error, beyond=beyond)
            plain.add(error)
            fast.add(error)

    def test_what_is_no_number_is_refused(self) -> None:
        margin = _ways.Margin(0.99)
        for call in (margin.add, margin.chance, margin.quantile):
            with pytest.raises(TypeError):
                call("one")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="share"):
            margin.quantile(1.0)


class TestRoundTrip:
    @pytest.mark.parametrize("seed", range(30))
    def test_is_the_same(self, seed: int) -> None:
        rng, time_s = Random(seed), 0.0
        plain, fast = round_trip(0.9, "python"), round_trip(0.9, "c")
        assert isinstance(plain, RoundTrip)
        assert isinstance(fast, _ways.RoundTrip)
        rate = 1.0
        for _ in range(400):
            rate *= rng.choice([1.0] * 20 + [0.1, 10.0])
            time_s += rng.expovariate(2)
            size = rng.choice([110.0, 380.0, rng.uniform(80, 3000)])
            took_ms = rng.choice([5.0, 60.0]) + size / rate * rng.lognormvariate(0, 0.2)
            sent = Sent(size, size * rng.uniform(0.8, 1.2), queued=rng.random() < 0.3)
            for trip in (plain, fast):
                trip.answered(sent, took_ms, 2.0 + took_ms % 1, time_s)
                if size > 2500:
                    trip.waited(size, 3 * took_ms)
            self.compare(plain, fast, rng, time_s)

    @staticmethod
    def compare(plain: RoundTrip, fast: RoundTrip, rng: Random, time_s: float) -> None:
        assert (fast.line, fast.scale, fast.server_ms) == (plain.line, plain.scale, plain.server_ms)
        assert (fast.known, fast.told, fast.calm) == (plain.known, plain.told, plain.calm)
        assert fast.margin.upper == plain.margin.upper
        size, waiting_ms, frames = rng.uniform(80, 9000), rng.uniform(0, 900), rng.randint(0, 4)
        for of in ("queue_ms", "usual_ms", "expected_ms"):
            assert getattr(fast, of)(size) == getattr(plain, of)(size), of
        assert fast.begun_ms(waiting_ms, time_s + 0.1) == plain.begun_ms(waiting_ms, time_s + 0.1)
        assert fast.overdue(size, waiting_ms) == plain.overdue(size, waiting_ms)
        asked = size if frames else 0.0, frames, waiting_ms, rng.choice([200.0, math.inf])
        assert tuple(fast.fear(*asked)) == tuple(plain.fear(*asked))


class TestDeviceEstimate:
    @pytest.mark.parametrize("seed", range(20))
    def test_is_the_same(self, seed: int) -> None:
        rng, time_s, macs = Random(seed), 0.0, {1.0: 900, 0.25: 100, 0.5: 300}
        plain, fast = device_estimate(macs, 0.9, "python"), device_estimate(macs, 0.9, "c")
        assert isinstance(plain, DeviceEstimate)
        assert isinstance(fast, _ways.DeviceEstimate)
        for _ in range(300):
            time_s += rng.expovariate(5)
            width, busy = rng.choice(list(macs)), rng.choice([1.0, 1.0, rng.uniform(0.5, 4)])
            times_ms = busy * 2.0, busy * 40 * width * rng.lognormvariate(0, 0.05)
            for device in (plain, fast):
                if time_s % 1 < 0.1:
                    device.ran_whole(sum(times_ms), time_s)
                else:
                    device.ran(width, *times_ms, time_s)
                device.coded(busy)
            self.compare(plain, fast, rng.choice(list(macs)), time_s + rng.choice([0.1, 2.0]))

    @staticmethod
    def compare(plain: DeviceEstimate, fast: DeviceEstimate, width: float, time_s: float) -> None:
        for of in ("factor", "least_factor", "code_ms", "prepare_ms", "heads_ms", "known"):
            assert getattr(fast, of) == getattr(plain, of), of
        assert fast.margin.upper == plain.margin.upper
        assert fast.expected_ms(width) == plain.expected_ms(width)
        assert fast.fresh(time_s) is plain.fresh(time_s)
        assert fast.whole_ms(width) == plain.whole_ms(width)

    def test_an_unknown_width_is_refused(self) -> None:
        with pytest.raises(KeyError):
            _ways.DeviceEstimate({0.5: 100}, 0.9).ran(0.6, 1.0, 1.0, 0.0)


class Case:
    """Some ways, and what is asked of them."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = Random(seed)
        self.table = self._table()
        self.exits: Exits = tuple(rng.choice([None, self._accuracy()]) for _ in WIDTHS)
        widest = list(self.table.values())[-1]
        whole = Way("whole", widest[0], self._accuracy(), 1.0, sure=True, compute_ms=rng.uniform(1, 80))
        self.whole = rng.choice([None, None, whole])
        heads_ms = [rng.uniform(0, 90) for _ in WIDTHS]
        limits_ms = rng.uniform(-10, 300), rng.choice([-1.0, math.inf, rng.uniform(0, 200)])
        self.work = Work(*limits_ms, rng.uniform(0, 5), rng.uniform(1, 3), heads_ms)
        self.errors = [rng.lognormvariate(0, 0.6) for _ in range(rng.randint(0, 90))]
        bounds = rng.choice([math.inf, rng.uniform(50, 2000)]), rng.choice([math.inf, rng.uniform(50, 2000)])
        doubt = rng.choice([1.0, rng.uniform(0, 3)])
        slack = rng.choice([0.002, 0.05])
        self.wanted = Wanted(rng.uniform(0.5, 1), slack, rng.uniform(0, 0.3), *bounds, doubt, rng.uniform(0, 1))
        self.kept: Key | None = rng.choice([None, (rng.choice(["send", "local", "whole"]), rng.randint(0, 12), None)])
        cost = Cost(rng.uniform(0, 1), rng.uniform(0, 100), rng.choice([0.0, 1.0]))
        self.cost = rng.choice([None, cost])

    def _accuracy(self) -> float:
        return self.rng.choice([0.5, 0.9, self.rng.random()])

    def _table(self) -> Table:
        rng, mode, table = self.rng, 0, {}
        for width in sorted(rng.sample(WIDTHS, rng.randint(1, 4))):
            options, size, accuracy = [], rng.uniform(80, 200), self._accuracy()
            for _ in range(rng.randint(1, 5)):
                options.append(Option(mode, rng.choice([None, None, 2]), width, size, size, accuracy))
                mode, size, accuracy = mode + 1, size * rng.uniform(1, 2), accuracy + rng.choice([1e-3, 0.05])
            table[width] = tuple(options)
        return table

    def room(self, implementation: Implementation) -> Room | None:
        rng, margin = Random(self.errors[0] if self.errors else 0), margin_type(implementation)(0.99)
        for error in self.errors:
            margin.add(error)
        queue = rng.choice([(0.0, 0.0), (rng.uniform(0, 200), rng.uniform(0, 300))])
        left_ms, steady = rng.choice([math.inf, rng.uniform(-50, 600)]), rng.choice([math.inf, rng.uniform(50, 900)])
        beyond = rng.choice([0.0, rng.lognormvariate(0, 1)])
        rates = rng.uniform(1, 99), rng.choice([0.0, rng.random()])
        fear = Fear(rng.choice([0.0, rng.random()]), rng.uniform(1, 300), rng.random(), rng.choice([math.inf, 200.0]))
        room = Room(left_ms, *rates, *queue, steady, beyond, margin, fear)
        return room if rng.random() < 0.9 else None

    def all(self, implementation: Implementation) -> tuple[list[Way], float]:
        ways = Ways(self.table, WIDTHS, implementation)
        return ways.all(self.exits, self.whole, self.work, self.room(implementation), self.wanted)

    def best(self, implementation: Implementation) -> tuple[Way | None, float]:
        ways = Ways(self.table, WIDTHS, implementation)
        asked = self.exits, self.whole, self.work, self.room(implementation), self.wanted
        return ways.best(*asked, self.kept, self.cost)


class TestWays:
    def test_all_are_the_same(self) -> None:
        for seed in SEEDS:
            case = Case(seed)
            assert case.all("c") == case.all("python"), seed

    def test_the_best_is_the_same(self) -> None:
        found = [(case.best("c"), case.best("python")) for case in map(Case, SEEDS)]
        for seed, (fast, plain) in enumerate(found):
            assert fast == plain, seed
        ends = {None if way is None else (way.action, way.sure) for (way, _), _ in found}
        assert ends == {None, ("local", True), ("whole", True), ("send", True), ("send", False)}

    def test_are_made_anew_where_they_are_unpickled(self) -> None:
        case = Case(3)
        again = pickle.loads(pickle.dumps(Ways(case.table, WIDTHS)))  # noqa: S301 - our own
        assert [len(options) for _, options in again.widest_first] == [len(of) for of in reversed(case.table.values())]

    def test_what_cannot_be_weighed_is_refused(self) -> None:
        case = Case(5)
        best, given = Ways(case.table, WIDTHS, "c").best, (case.work, case.room("c"), case.wanted, None, None)
        with pytest.raises(TypeError, match="7 arguments"):
            best(case.exits, None, *given, None)  # type: ignore[call-arg]
        with pytest.raises(IndexError):
            best((), None, *given)
        with pytest.raises(TypeError):
            best(case.exits, None, case.work._replace(factor="two"), *given[1:])  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="margin"):
            best(case.exits, None, case.work, Room(*[1.0] * 7, Margin(0.99), Fear(0, 0, 0, 1)), *given[2:])
        with pytest.raises(ValueError, match="no widths"):
            _ways.Scales(Way, [])
        with pytest.raises(ValueError, match="no options"):
            _ways.Scales(Way, [(0, ())])


@pytest.mark.parametrize("policy", [Policy(), Policy("bytes"), Policy("energy"), Policy(max_bytes_per_s=500)])
@pytest.mark.parametrize("local", [True, False])
def test_a_controller_decides_the_same(policy: Policy, local: bool) -> None:
    trace = Trace.markov(4, [(0, 0.5), (10e3, 2.0), (50e3, 4.0), (500e3, 4.0)])
    exits = {mode.width: 0.7 for mode in MODES} if local else None
    heads_ms = {mode.width: 12 * mode.width for mode in MODES}
    twin = Twin(MODES, LinkTrace("x", trace, trace, 0.02, 0.02), Device(heads_ms), exit_accuracy=exits)

    def run(implementation: Implementation) -> Sequence[object]:
        offers = Offers(MODES, policy, implementation=implementation)
        return twin.run(DeadlineController(MODES, policy, exit_accuracy=exits, offers=offers), 150)

    assert run("c") == run("python")


class Life:
    """What happens to a device, at random: the usual for a while, then something else."""

    def __init__(self, seed: int) -> None:
        self.rng, self.time_s, self.flying = Random(seed), 0.0, 0
        self.wish: tuple[int | None, int | None] = (None, None)
        self.rate = 3.0

    def situation(self) -> Situation:
        rng = self.rng
        self.time_s += rng.choice([0.2, 0.2, 0.2, 5.0])
        if rng.random() < 0.02:
            self.wish = rng.choice([(None, None), (None, 400)])
        self.flying = 0 if rng.random() < 0.8 else rng.randint(0, 3)
        return Situation(
            deadline_ms=rng.choice([300.0] * 30 + [None]),
            age_ms=rng.choice([0.0, 0.0, 5.0]),
            interval_ms=rng.choice([200.0] * 20 + [None]),
            frames_unanswered=self.flying,
            bytes_unanswered=300 * self.flying,
            oldest_ms=rng.uniform(0, 100) if self.flying else 0.0,
            held_ms=rng.choice([0.0] * 40 + [50.0]),
            connected=rng.random() < 0.99,
            max_groups=self.wish[0],
            max_bytes=self.wish[1],
            time_s=self.time_s,
            exit_available=rng.random() < 0.9,
            whole_ms=rng.choice([None] * 9 + [60.0]),
        )

    def observation(self, decision: Decision) -> Observation:
        rng = self.rng
        self.rate *= rng.choice([1.0] * 30 + [0.2, 5.0])
        size = round(MODES[decision.mode].mean_bytes * rng.lognormvariate(0, 0.1))
        outcome = rng.choice(["answered"] * 30 + ["late", "local", "failed", "expired"])
        came = outcome in {"answered", "late"}
        return Observation(
            *(decision.mode, size, 1.0, 8.0 * MODES[decision.mode].width * rng.choice([1.0, 1.0, 1.5]), 0.5, outcome),
            round_trip_ms=40 + size / self.rate if came else None,
            server_ms=3.0,
            bytes_ahead=300 * self.flying,
            exit_ms=0.2,
            time_s=self.time_s + 0.05,
            waited_ms=0.0 if came else 80.0,
            sent=True,
        )

    def lead(self, controller: DeadlineController, pictures: int) -> list[object]:
        told: list[object] = []
        for _ in range(pictures):
            situation = self.situation()
            decision = controller.choose(situation)
            if decision.action == "send":
                taken_ms = self.rng.choice([9.0, 9.0, 30.0])
                later = replace(situation, age_ms=situation.age_ms + taken_ms, time_s=situation.time_s + taken_ms / 1e3)
                told.append(decision)
                decision = controller.refine(decision, later, None)
            told.append(decision)
            if decision.action == "send":
                controller.observe(self.observation(decision))
            told.append((controller.link.line, controller.device.factor, controller.link.margin.upper))
        return told


@pytest.mark.parametrize("seed", range(25))
def test_a_controller_decides_the_same_whatever_happens(seed: int) -> None:
    def run(implementation: Implementation) -> list[object]:
        offers = Offers(MODES, Policy(level=0.9), implementation=implementation)
        exits, whole = (EXIT, 0.87) if seed % 2 else (None, None)
        given = {"exit_accuracy": exits, "whole_accuracy": whole, "offers": offers}
        return Life(seed).lead(DeadlineController(MODES, Policy(level=0.9), **given), 400)  # type: ignore[arg-type]

    assert run("c") == run("python")


def test_the_usual_picture_is_the_kernel_s() -> None:
    controller = DeadlineController(MODES, exit_accuracy=EXIT)
    asked: list[object] = []
    trace = Trace.constant(5e6)
    Twin(MODES, LinkTrace("x", trace, trace, 0.02, 0.02), Device({0.25: 2.0, 1.0: 8.0}), exit_accuracy=EXIT).run(
        controller, 60
    )
    assert controller._steady is not None
    controller._leave = asked.append  # type: ignore[assignment, method-assign]
    situation = Situation(deadline_ms=300.0, interval_ms=200.0, time_s=1e3, exit_available=True)
    assert controller.choose(situation).action == "send"
    assert asked == []
    controller.choose(replace(situation, connected=False))
    assert asked == [controller._steady]


def test_works_without_a_compiler() -> None:
    code = """
import sys
sys.modules["headwater.device.control._ways"] = None
from headwater.device.control import estimates, kernel, margin
from headwater.device.control.deadline import DeadlineController
assert not kernel.compiled()
assert kernel.margin_type() is margin.Margin
assert type(estimates.round_trip(0.9)) is estimates.RoundTrip
assert type(estimates.device_estimate({1.0: 1}, 0.9)) is estimates.DeviceEstimate
try:
    kernel.compiled("c")
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "C compiler" in done.stdout
