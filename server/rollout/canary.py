"""Whether a new bundle does as well in the field as the one before, by what devices report: pure, no clock, no disk.

Nobody in the field knows the right answers, so it is judged by what falls when accuracy does:

    failures     frames that the server refused or failed on, of those it answered to
    agreement    of the frames that the local exit judged too, those where both say the same
    confidence   mean probability of the likeliest class

Each is a mean over frames, and compared with that of the bundle before with its standard error. That takes frames as
independent, which they are not (a camera sees one scene): so a fall counts only beyond `allowed` plus twice that error.
A device that went back by itself, or will not have the bundle, counts for more than any of these.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from headwater.compression.errors import SettingsError
from headwater.compression.settings import between

ERRORS = 2.0
"""Standard errors beyond which a fall is not chance."""
LEAST_FRAMES = 20
"""Fewest frames that anything is judged by."""
LONGER = 4
"""A bundle that is doubtful is watched for so many times more frames."""


@dataclass(frozen=True)
class Rules:
    """How carefully a release goes."""

    share: float = 0.1
    """Of the devices that have it first; 1 for all at once."""
    frames: int = 500
    """Frames that it answers in each stage before the next."""
    wider: float = 3.0
    """Each stage reaches so many times as many devices."""
    agreement: float = 5.0
    """Points that the agreement of local exit and server may fall."""
    confidence: float = 5.0
    """Points that the mean confidence may fall."""
    failures: float = 1.0
    """Points that the share of failed frames may rise."""
    trouble: float = 0.25
    """Share of the devices it has reached that may refuse or leave it."""

    def __post_init__(self) -> None:
        """Check the ranges; raises :class:`SettingsError`."""
        between("share", self.share, 0, 1)
        between("frames", self.frames, LEAST_FRAMES, 1_000_000_000)
        between("wider", self.wider, 1.1, 1000)
        for name in ("agreement", "confidence", "failures"):
            between(name, getattr(self, name), 0, 100)
        between("trouble", self.trouble, 0, 1)
        if not self.share:
            raise SettingsError("a canary share of 0 reaches no device; give at least 0.001, or 1 for all at once")


@dataclass(frozen=True)
class Figures:
    """What devices report of a bundle."""

    answered: int = 0
    failed: int = 0
    judged: int = 0
    agreed: int = 0
    confidence: float = 0.0
    """Summed over what was answered."""

    @classmethod
    def total(cls, rows: Iterable[Sequence[float]]) -> Self:
        """The sum of several devices'. What contradicts itself does not count."""
        sums = [0.0] * 5
        for answered, failed, judged, agreed, confidence in rows:
            if 0 <= agreed <= judged <= answered and 0 <= confidence <= answered and failed >= 0:
                for index, value in enumerate((answered, failed, judged, agreed, confidence)):
                    sums[index] += value
        answered, failed, judged, agreed = (int(value) for value in sums[:4])
        return cls(answered, failed, judged, agreed, sums[4])

    @property
    def frames(self) -> int:
        """Frames that the server had a word on."""
        return self.answered + self.failed


@dataclass(frozen=True)
class Verdict:
    """What to do about a release."""

    do: Literal["wait", "widen", "back"]
    why: str


def judge(new: Figures, old: Figures, rules: Rules, from_frames: int = 0) -> Verdict:
    """Say what to do, by the figures of the new bundle and of the one before.

    Args:
        new: of the bundle on trial, since it began.
        old: of the bundle before; empty figures are compared with nothing.
        rules: of the release.
        from_frames: of the new one's frames, those that earlier stages were judged by.
    """
    if new.frames < LEAST_FRAMES:
        return Verdict("wait", f"{new.frames} frames so far")
    falls = _falls(new, old, rules)
    worst = max(falls, key=lambda fall: fall.beyond, default=None)
    if worst is not None and worst.beyond > ERRORS * worst.error:
        return Verdict("back", worst.text)
    stage = new.frames - from_frames
    if stage < rules.frames:
        return Verdict("wait", f"{stage} of {rules.frames} frames in this stage")
    if worst is not None and worst.beyond > 0:
        if stage < LONGER * rules.frames:
            return Verdict("wait", f"{worst.text}, which may be chance")
        return Verdict("back", f"{worst.text} after {stage} frames")
    return Verdict("widen", f"{stage} frames, " + (", ".join(fall.text for fall in falls) or "nothing to compare with"))


def decide(
    new: Figures,
    old: Figures,
    rules: Rules,
    *,
    from_frames: int,
    everywhere: bool,
    reached: int,
    trouble_of: Sequence[str],
) -> Verdict:
    """Say what to do about a release, by its figures and by what became of it on the devices that it has reached.

    Args:
        new: of the bundle on trial.
        old: of the bundle before.
        rules: of the release.
        from_frames: of the new one's frames, those that earlier stages were judged by.
        everywhere: all devices are to have it: it is watched for a while yet, and then it is what the next one is
            compared with.
        reached: devices that it has reached.
        trouble_of: why devices refuse or left it, of each.
    """
    if trouble(reached, len(trouble_of), rules):
        return Verdict("back", f"{len(trouble_of)} of {reached} devices will not have it: {trouble_of[0]}")
    verdict = judge(new, old, rules, from_frames)
    if not everywhere:
        return verdict
    watched = new.frames - from_frames < LONGER * rules.frames
    return verdict if verdict.do == "back" and watched else Verdict("wait", verdict.why)


@dataclass(frozen=True)
class _Fall:
    text: str
    beyond: float
    """Points beyond what is allowed."""
    error: float
    """Its standard error, points."""


def _falls(new: Figures, old: Figures, rules: Rules) -> list[_Fall]:
    compared = [
        # A bundle before that nobody has reported of has not failed: what fails now is the new one's.
        ("failures", (new.failed, new.frames), (old.failed, old.frames or new.frames), rules.failures, -1),
        ("agreement", (new.agreed, new.judged), (old.agreed, old.judged), rules.agreement, 1),
        ("confidence", (new.confidence, new.answered), (old.confidence, old.answered), rules.confidence, 1),
    ]
    falls = []
    for name, (now, now_of), (before, before_of), allowed, sign in compared:
        if not now_of or not before_of:
            continue
        is_now, was = now / now_of, before / before_of
        # Of a confidence, too: no share between 0 and 1 varies more than one of which each frame is 0 or 1.
        both = (now + before) / (now_of + before_of)
        error = 100 * math.sqrt(both * (1 - both) * (1 / now_of + 1 / before_of))
        falls.append(_Fall(f"{name} {is_now:.1%} after {was:.1%}", 100 * sign * (was - is_now) - allowed, error))
    return falls


def trouble(reached: int, troubled: int, rules: Rules) -> bool:
    """Whether so many devices refuse or left the bundle, of those it has reached, that it has to be left."""
    return troubled > 0 and troubled >= max(1, math.ceil(rules.trouble * reached))


def ranked(devices: Iterable[str], serial: int) -> list[str]:
    """The devices in the order in which a release reaches them: for each release another, whoever asks the same."""
    return sorted(devices, key=lambda device: hashlib.sha256(f"{serial}/{device}".encode()).digest())


def room(share: float, devices: int, members: int) -> int:
    """How many devices more a release of this share may reach, of so many of which it has some already."""
    return max(math.ceil(share * devices) - members, 0)
