"""A small table of modes for tests of controllers, links and devices for the twin, and what its runs came to."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from headwater.compression.manifest import Mode
from headwater.device.control.deadline import DeadlineController
from headwater.device.control.policy import Policy
from headwater.simulations.trace import LinkTrace, Trace
from headwater.simulations.twin import Device, Outcome, Twin

MODES = tuple(
    Mode(
        index=index,
        width=width,
        gain=gain,
        channels=4,
        mean_bytes=size,
        p95_bytes=size * 1.3,
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
"""From 30 bytes to 3 kB, the larger the more accurate, at two widths."""
EXIT = {0.25: 0.72, 1.0: 0.76}
WHOLE = 0.87
DEVICE = Device(head_ms={0.25: 2.0, 1.0: 8.0})


def link(trace: Trace, delay_ms: float = 20.0) -> LinkTrace:
    """The same trace both ways."""
    return LinkTrace("test", trace, trace, delay_ms / 1e3, delay_ms / 1e3)


KBIT = 1e3
LINKS = {
    "fast": link(Trace.constant(5e6)),
    "slow": link(Trace.constant(60 * KBIT)),
    "tenfold": link(Trace.steps([(20, 1e6), (20, 1e5)])),
    "black-out": link(Trace.steps([(15, 3e5), (5, 0)])),
    "wandering": link(Trace.markov(3, [(0, 0.5), (2e4, 2), (1e5, 3), (1e6, 3)])),
    "wandering, slow": link(Trace.markov(5, [(1e4, 2), (4e4, 3), (2e5, 3)])),
}


def twin(
    trace: LinkTrace, deadline_ms: float | None = 300.0, *, local: bool = True, seed: int = 0, device: Device = DEVICE
) -> Twin:
    exit_accuracy = EXIT if local else None
    return Twin(MODES, trace, device, deadline_ms=deadline_ms, exit_accuracy=exit_accuracy, seed=seed)


def rule(policy: Policy | None = None, *, local: bool = True) -> DeadlineController:
    return DeadlineController(MODES, policy, exit_accuracy=EXIT if local else None, whole_accuracy=WHOLE)


def accuracy(outcomes: Sequence[Outcome]) -> float:
    """Mean of what is expected of the answers in time, in points."""
    return 100 * fmean(outcome.accuracy for outcome in outcomes)


def missed(outcomes: Sequence[Outcome], oracle: Sequence[Outcome], deadline_ms: float) -> float:
    """Share of the pictures that the oracle answers which had no answer in time."""
    could = [(own, best) for own, best in zip(outcomes, oracle, strict=True) if best.source != "none"]
    return sum(own.answered_ms > deadline_ms for own, _ in could) / max(len(could), 1)
