"""What the controller costs a frame: choosing, refining after the head, and learning from the answer.

    python -m benchmarks.controller                    # the shipped bundle of 20 modes
    python -m benchmarks.controller --quick

A twin (simulations/twin.py) drives the controller over a generated link whose rate wanders and drops out, so that it
goes through all that it does: climbing, changes, frames in flight, exploring. What it decides is checked first: each
picture has an answer in time. The peer is the paper's mean-based controller over the same link.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from benchmarks import claims
from benchmarks.deadlines.peers import MeanController
from headwater.compression.bundle import Bundle
from headwater.device.control.deadline import DeadlineController
from headwater.device.control.policy import Policy
from headwater.simulations.trace import LinkTrace, Trace
from headwater.simulations.twin import Device, Twin

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwater.compression.manifest import Mode
    from headwater.device.control.controller import Controller, Decision, Observation, Situation

BUNDLE = Path(__file__).parent.parent / "simulations" / "bundles" / "solar"
TARGET_US = 50
DEADLINE_MS = 300.0
TURNS = 5
"""Runs, of which the best counts: what else the machine does slows some of them."""
STATES = [(0.0, 0.5), (10e3, 2.0), (50e3, 4.0), (500e3, 4.0)]
"""Bits a second, and mean seconds of a stay."""


class Timed:
    """A controller with a stop-watch around each call."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.frames_s: list[float] = []
        """What was spent for each picture, and for the answers that came meanwhile."""

    def choose(self, situation: Situation) -> Decision:
        begin = time.perf_counter()
        decision = self.controller.choose(situation)
        self.frames_s.append(time.perf_counter() - begin)
        return decision

    def refine(self, decision: Decision, situation: Situation, confidence: float | None) -> Decision:
        begin = time.perf_counter()
        decision = self.controller.refine(decision, situation, confidence)
        self.frames_s[-1] += time.perf_counter() - begin
        return decision

    def observe(self, observation: Observation) -> None:
        begin = time.perf_counter()
        self.controller.observe(observation)
        self.frames_s[-1] += time.perf_counter() - begin


def twin(modes: Sequence[Mode], exit_accuracy: dict[float, float], seed: int) -> Twin:
    """A device of heads of 2 to 8 ms on a link whose rate wanders."""
    trace = Trace.markov(seed, STATES)
    device = Device(head_ms={mode.width: 8 * mode.width for mode in modes})
    link = LinkTrace("wandering", trace, trace, 0.02, 0.02)
    return Twin(modes, link, device, deadline_ms=DEADLINE_MS, exit_accuracy=exit_accuracy)


def measure(
    make: Callable[[], Controller], modes: Sequence[Mode], exit_accuracy: dict[float, float], frames: int
) -> float:
    """Median microseconds a frame, of the best of some runs; asserts that each picture is answered by its deadline."""
    medians = []
    for _ in range(TURNS):
        timed = Timed(make())
        outcomes = twin(modes, exit_accuracy, seed=1).run(timed, frames)
        late = sum(outcome.answered_ms > DEADLINE_MS for outcome in outcomes)
        assert late == 0, f"{late} of {frames} pictures had no answer in time, although there is a local exit"
        medians.append(median(timed.frames_s) * 1e6)
    return min(medians)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it."""
    options = claims.options(__doc__, arguments)
    modes = Bundle.load(BUNDLE).manifest.modes
    frames = 200 if options.quick else 2000
    # Below what the server gives, so that frames are sent and the whole of the rule runs.
    exit_accuracy = {mode.width: 0.7 + 0.05 * mode.width for mode in modes}
    table = Table(title="Median time of a frame", title_justify="left")
    table.add_column("policy")
    table.add_column("µs", justify="right")
    policies = {
        "accuracy": Policy(),
        "bytes": Policy("bytes"),
        "energy": Policy("energy"),
        "a budget": Policy(max_bytes_per_s=500),
    }
    found = {}
    for name, policy in policies.items():
        make = partial(DeadlineController, modes, policy, exit_accuracy=exit_accuracy)
        found[name] = measure(make, modes, exit_accuracy, frames)
        table.add_row(name, f"{found[name]:.1f}")
    encode_ms = {mode.width: 8 * mode.width for mode in modes}
    mean = measure(partial(MeanController, modes, encode_ms, DEADLINE_MS), modes, exit_accuracy, frames)
    Console().print(table)
    worst = max(found.values())
    peer = f"the mean-based controller, {mean:.1f} µs"
    what = "controller cost a frame, 20 modes: choose, refine and observe"
    return claims.report(
        "Controller", [claims.at_most("controller", what, worst, unit="µs", target=TARGET_US, peer=peer)], options
    )


if __name__ == "__main__":
    sys.exit(main())
