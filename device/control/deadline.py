"""The deadline rule as the agent runs it: the usual picture in C, any other by :mod:`headwater.device.control.rule`.

Most pictures are like the one before: the link is there and known, the frame was answered in time, and the most
accurate way that is sure is to send one again. For these the compiled kernel (``_steady.c``) does what the rule says,
in a tenth of the time. It looks first, and says None where anything is out of the ordinary; then the rule goes on from
where the kernel is, until a frame is answered in time again::

    rule ── a frame answered in time ──> kernel ── anything else ──> rule

Both decide the same to the last bit (tests/device/control/test_kernel.py), and the rule is the reference.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from headwater.device.control.controller import Decision
from headwater.device.control.kernel import compiled, steady_type
from headwater.device.control.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headwater.compression.manifest import Mode
    from headwater.device.control._ways import Steady
    from headwater.device.control.controller import Observation, Situation
    from headwater.device.control.offers import Offers
    from headwater.device.control.policy import Policy


class DeadlineController(Rule):
    """Chooses by the chance to be in time; see :mod:`headwater.device.control.rule`."""

    def __init__(
        self,
        modes: Sequence[Mode],
        policy: Policy | None = None,
        *,
        exit_accuracy: Mapping[float, float] | None = None,
        whole_accuracy: float | None = None,
        offers: Offers | None = None,
    ) -> None:
        """Begin without knowing anything; see :class:`headwater.device.control.rule.Rule`."""
        super().__init__(modes, policy, exit_accuracy=exit_accuracy, whole_accuracy=whole_accuracy, offers=offers)
        self._steady: Steady | None = None
        """The kernel, while everything is as usual."""
        self._kernel = self._of_c() if compiled(self._offers.implementation) else None

    def _of_c(self) -> Steady | None:
        """The kernel, which knows neither costs nor budgets."""
        if self.policy.objective != "accuracy" or self.policy.max_bytes_per_s is not None:
            return None
        offers, level = self._offers, self._level
        numbers = self._slack, self._near, level.hit, level.least
        given = self.link, self.device, offers.decisions(), offers.number_of, self._exits, numbers
        return steady_type()(*given, self._whole is not None)

    # ------------------------------------------------------------ a picture

    def choose(self, situation: Situation) -> Decision:
        """Say what to do with the next picture; there is always something."""
        if self._steady is not None:
            decision = self._steady.choose(situation)
            if decision is not None:
                return decision
            self._leave(self._steady)
        return super().choose(situation)

    def refine(self, decision: Decision, situation: Situation, confidence: float | None) -> Decision:
        """Choose the gain again with the time that is left, and what the local exit thinks of its own answer."""
        if self._steady is not None:
            refined = self._steady.refine(decision, situation)
            if refined is not None:
                return refined
            self._leave(self._steady)
        return super().refine(decision, situation, confidence)

    def observe(self, observation: Observation) -> None:
        """Learn from a frame that is done with."""
        if self._steady is not None:
            if self._steady.observe(observation):
                return
            self._leave(self._steady)
        super().observe(observation)
        if self._kernel is not None and observation.outcome == "answered" and self._connected:
            self._enter(self._kernel)

    # ------------------------------------------------------------ in and out of the kernel

    def _enter(self, kernel: Steady) -> None:
        scales, climber = self._offered.ways.scales, self._climber
        counts = climber.frames, climber.gap
        kernel.enter(scales, self._wish, self._kept, self._worth, self._level.asked, counts, self._foretold)
        self._steady = kernel

    def _leave(self, kernel: Steady) -> None:
        self._steady, climber = None, self._climber
        self._kept, self._worth, self._level.asked, counts, self._foretold, heard_s = kernel.leave()
        climber.frames, climber.gap = counts
        if not math.isnan(heard_s):
            self._explorer.answered(heard_s)
