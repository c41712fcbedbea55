"""The end of a round: from replies as they came to the next version, and the bytes that take devices there.

    replies --checks--> contributions --aggregator--> change
    arrays + rest + change --companion--> wanted;  wanted - arrays --encode--> bytes, decoded
    next arrays = arrays + decoded   (what devices will hold too);   next rest = wanted - next arrays
    next mean   = mean + (wanted - mean) / versions that it is over

It is a function of what the journal and the last version hold, and of nothing else: done again after a kill, it gives
the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.compression.learning.arrays import version_of
from headwater.compression.learning.masks import ENDED
from headwater.compression.updates import Scheme, encode
from headwater.protos.flower import Parcel, unpack
from headwater.server.federation.checks import Asked, Refused, capped, length, metrics_of, read, too_long, typical
from headwater.server.federation.entries import Step, Verdict
from headwater.server.federation.versions import Held

if TYPE_CHECKING:
    from flwr.app import Message
    from numpy.typing import NDArray

    from headwater.server.federation.averaging import Aggregator, Arrays, Contribution
    from headwater.server.federation.companion import Companion
    from headwater.server.federation.entries import Task
    from headwater.server.federation.outline import Outline

UNKNOWN_VERSION = "unknown version"
"""In the reason of a device's error: it does not hold what we thought, and needs the whole chain."""


@dataclass(frozen=True)
class Judged:
    """A task's reply, as checked."""

    task: Task
    contribution: Contribution | None
    nonce: str = ""
    refused: str = ""
    """The word and why; empty for one that is believed."""

    def verdict(self) -> Verdict:
        """For the journal."""
        facts = {} if self.contribution is None else _facts(self.contribution)
        held = self.task.base if self.contribution is not None else ""
        forget = UNKNOWN_VERSION in self.refused
        return Verdict(self.task.node, "train", self.refused, facts, self.nonce, held, self.task.round, forget)


@dataclass(frozen=True)
class Rules:
    """How replies become a version."""

    outline: Outline
    aggregate: Aggregator
    down: Scheme
    width: float = 1.0
    part: str = "all"
    longest: float = 10.0
    server_rate: float = 1.0
    average: int = 1


@dataclass(frozen=True)
class Next:
    """What a round gives."""

    held: Held
    step: Step
    facts: Mapping[str, Any]

    def without_masks(self) -> Next:
        """The same, with word to the devices that masks end here."""
        return replace(self, step=replace(self.step, note=ENDED))


def judge(
    tasks: Sequence[Task], rules: Rules, seen: Callable[[str], bool], masks: Mapping[str, NDArray[np.bool_]] | None
) -> list[Judged]:
    """Read every reply; one nonce is good for one reply, also within a round."""
    taken: set[str] = set()
    judged = []
    for task in tasks:
        one = _judged(task, rules, lambda nonce: nonce in taken or seen(nonce), masks)
        taken.add(one.nonce)
        judged.append(one)
    return judged


def _judged(
    task: Task, rules: Rules, seen: Callable[[str], bool], masks: Mapping[str, NDArray[np.bool_]] | None
) -> Judged:
    asked = Asked(task.node, task.device, task.base, rules.width, rules.part, masks)
    try:
        contribution, nonce = read(reply_of(task), asked, rules.outline, seen)
    except Refused as refused:
        return Judged(task, None, refused=str(refused))
    return Judged(task, contribution, nonce)


def reply_of(task: Task) -> Message:
    """The reply that the journal keeps."""
    assert task.envelope is not None
    assert task.content is not None
    return unpack(Parcel(task.envelope, task.content))


def without_outliers(judged: Sequence[Judged], bound: float, known: float) -> list[Judged]:
    """Refuse those that are absurdly long."""
    good = [each for each in judged if each.contribution is not None and not each.refused]
    found = too_long([each.contribution for each in good if each.contribution is not None], bound, known)
    outliers = {good[i].task.node: refused for i, refused in found.items()}
    return [replace(j, refused=str(outliers[j.task.node])) if j.task.node in outliers else j for j in judged]


def close(number: int, held: Held, contributions: Sequence[Contribution], rules: Rules, companion: Companion) -> Next:
    """The next version; with nothing to aggregate it is the same one."""
    if not contributions:
        return Next(held, Step(held.version, b"", b""), {"devices": 0})
    contributions = capped(contributions)
    change = rules.aggregate(contributions, rules.outline.layout.shapes)
    rate = np.float32(rules.server_rate)
    exact = {name: array + rate * change[name] for name, array in held.exact().items()}
    ending = companion.end(number, contributions, masked(exact, companion.coded(number, held.arrays)))
    masks = companion.masks()
    wanted = masked(ending.arrays, masks)
    delta = {name: wanted[name] - held.arrays[name] for name in wanted}
    coded = encode(delta, rules.outline.layout, rules.down, base=bytes.fromhex(held.version), mask=masks)
    arrays = masked({name: array + coded.decoded[name] for name, array in held.arrays.items()}, masks)
    rest = {name: wanted[name] - array for name, array in arrays.items()}
    version = version_of(arrays)
    step = Step(version, coded.data, ending.note)
    mean = masked(_mean(number, held.mean, wanted, rules.average), masks)
    return Next(Held(version, arrays, rest, mean), step, _summary(contributions, len(coded.data) + len(ending.note)))


def _mean(number: int, mean: Arrays, wanted: Arrays, over: int) -> Arrays:
    """The running mean over the last versions, of all while there are fewer; none where it would be the last itself."""
    if over == 1:
        return {}
    share = np.float32(1 / min(number, over))
    return {name: (1 - share) * mean.get(name, array) + share * array for name, array in wanted.items()}


def evaluated(tasks: Sequence[Task]) -> tuple[dict[str, float], list[Verdict]]:
    """What devices measured, weighted by their examples, and what each said; refused are those that say nothing."""
    sums: dict[str, float] = {}
    verdicts, total = [], 0.0
    for task in tasks:
        reply = reply_of(task)
        try:
            examples, found = _figures(reply)
        except Refused as why:
            verdicts.append(Verdict(task.node, task.kind, str(why), forget=UNKNOWN_VERSION in str(why)))
            continue
        total += examples
        for name, value in found.items():
            sums[name] = sums.get(name, 0.0) + examples * value
        verdicts.append(Verdict(task.node, task.kind, "", {"num-examples": examples, **found}, holds=task.base))
    return {name: value / total for name, value in sums.items()}, verdicts


def _figures(reply: Message) -> tuple[float, dict[str, float]]:
    """Examples, and everything else that was measured on them."""
    if reply.has_error():
        raise Refused("error", reply.error.reason or "no reason given")
    found = metrics_of(reply)
    examples = found.pop("num-examples", 0.0)
    if not (np.isfinite([examples, *found.values()]).all() and examples > 0):
        raise Refused("examples", f"figures of {examples} examples, or some that are no numbers")
    return examples, found


def masked(arrays: Arrays, masks: Mapping[str, NDArray[np.bool_]] | None) -> dict[str, NDArray[np.float32]]:
    """The arrays with 0 outside the masks."""
    zero = np.float32(0)
    return {name: np.where(masks[name], a, zero) if masks and name in masks else a for name, a in arrays.items()}


def _summary(contributions: Sequence[Contribution], bytes_change: int) -> dict[str, Any]:
    losses = [(each.examples, each.metrics["loss"]) for each in contributions if "loss" in each.metrics]
    weight = sum(examples for examples, _ in losses)
    return {
        "devices": len(contributions),
        "change_bytes": bytes_change,
        "usual_length": typical([length(each) for each in contributions]),
        **({"loss": sum(e * loss for e, loss in losses) / weight} if weight else {}),
    }


def _facts(contribution: Contribution) -> dict[str, Any]:
    return {
        **{name: value for name, value in contribution.metrics.items() if np.isfinite(value)},
        "width": contribution.width,
        "part": contribution.part,
        "scale": contribution.scale,
    }
