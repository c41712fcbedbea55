"""The compiled arithmetic and its plain Python twin: the same to the last bit, whatever comes."""

from __future__ import annotations

import math
import pickle  # noqa: TID251 - that it can be, for processes that are spawned
import subprocess
import sys
from random import Random
from typing import TYPE_CHECKING

import pytest

from headwater.device import _ways
from headwater.device.deadline import DeadlineController
from headwater.device.kernel import Implementation, margin_type
from headwater.device.line import Line
from headwater.device.margin import MEMORY, Margin
from headwater.device.offers import Offers
from headwater.device.options import Option
from headwater.device.policy import Cost, Policy
from headwater.device.ways import Fear, Room, Wanted, Way, Ways, Work
from headwater.simulations.trace import LinkTrace, Trace
from headwater.simulations.twin import Device, Twin
from tests.device.twins import MODES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.device.options import Table
    from headwater.device.ways import Exits, Key

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


class TestLine:
    @pytest.mark.parametrize("guess_ms", [None, 12.5])
    @pytest.mark.parametrize("sizes", [1, 3, 50])
    def test_is_the_same(self, sizes: int, guess_ms: float | None) -> None:
        rng, plain, fast = Random(sizes), Line(guess_ms), _ways.Line(guess_ms)
        of = [rng.uniform(80, 3000) for _ in range(sizes)]
        for _ in range(300):
            frame = rng.choice(of), rng.lognormvariate(4, 1), rng.choice([0.0, rng.random()])
            plain.add(*frame)
            fast.add(*frame)
            assert (fast.base_ms, fast.byte_ms, fast.told) == (plain.base_ms, plain.byte_ms, plain.told)
            assert fast.at(frame[0] + 1) == plain.at(frame[0] + 1)

    def test_what_is_no_number_is_refused(self) -> None:
        with pytest.raises(TypeError):
            _ways.Line("long")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            _ways.Line().add(1.0, "long", 1.0)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="3 arguments"):
            _ways.Line().add(1.0, 2.0)  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            _ways.Line().at("long")  # type: ignore[arg-type]


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


def test_works_without_a_compiler() -> None:
    code = """
import sys
sys.modules["headwater.device._ways"] = None
from headwater.device import kernel, line, margin
from headwater.device.deadline import DeadlineController
assert not kernel.compiled()
assert kernel.margin_type() is margin.Margin
assert kernel.line_type() is line.Line
try:
    kernel.compiled("c")
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "C compiler" in done.stdout
