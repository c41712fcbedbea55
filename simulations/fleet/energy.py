"""The energy of devices: the power of each state times its time, what each byte costs, and the radio's tail.

    joules = idle_w * awake + sleep_w * asleep                     the board, on or halted
           + core_w * computing                                    preparing, head, exit, coder, training
           + send_w * sending + receive_w * receiving + J/byte     the radio at work
           + tail_w * tail + wake_j * wakes                        the radio before and after

Powers of a board come from its class (boards/*.toml), those of a radio from :mod:`headwater.device.radio`, each with
its sources and a range. The range of a sum takes all lows together and all highs together, as if every figure erred to
the same side: the widest that the figures allow. The times and bytes are taken as the simulation found them, but for
computing, which is as uncertain as the class's head time is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from headwater.device.figure import ZERO, Figure
from headwater.device.radio import RADIOS, Radio

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwater.device.hardware import Hardware
    from headwater.simulations.fleet.outcome import ClassOutcome
    from headwater.simulations.fleet.radios import Kind

Part = Literal["idle", "sleep", "compute", "radio", "tail"]
PARTS: tuple[Part, ...] = ("idle", "sleep", "compute", "radio", "tail")


@dataclass(frozen=True)
class Activity:
    """What devices did, one or many together: seconds in each state, and bytes."""

    awake_s: float = 0.0
    """On, whatever else; not counted in `asleep_s`."""
    asleep_s: float = 0.0
    computing_s: float = 0.0
    """Of one core."""
    sending_s: float = 0.0
    receiving_s: float = 0.0
    sent_bytes: float = 0.0
    received_bytes: float = 0.0
    tail_s: float = 0.0
    """Radio awake, neither sending nor receiving."""
    wakes: float = 0.0
    """Times that the radio left its sleep."""


def activity(of: ClassOutcome) -> Activity:
    """What the devices of a simulated class did. The boards are on all the time: the simulation puts none to sleep."""
    busy = of.busy_s
    return Activity(
        awake_s=of.device_s,
        computing_s=math.fsum(busy[each] for each in ("prepare", "head", "exit", "code", "whole", "train")),
        sending_s=busy["send"],
        receiving_s=busy["receive"],
        sent_bytes=of.up_bytes,
        received_bytes=of.down_bytes,
        tail_s=busy["tail"],
        wakes=of.wakes,
    )


def reckoned(of: ClassOutcome, board: Hardware, kind: Kind) -> dict[str, float]:
    """Joules by part, with the middle of each figure; what an outcome holds."""
    return {part: figure.mid for part, figure in joules(board, radio_of(kind), activity(of)).items()}


def radio_of(kind: Kind) -> Radio:
    """The radio of a link's kind."""
    return RADIOS["none" if kind == "cable" else kind]


def joules(board: Hardware, radio: Radio, did: Activity) -> dict[Part, Figure]:
    """Energy by part, J."""
    speed = _speed(board)
    sent = radio.send_w * did.sending_s + radio.send_j_per_byte * did.sent_bytes
    received = radio.receive_w * did.receiving_s + radio.receive_j_per_byte * did.received_bytes
    return {
        "idle": board.idle_w * did.awake_s,
        "sleep": board.sleep_w * did.asleep_s,
        "compute": board.core_w * speed * did.computing_s,
        "radio": sent + received,
        "tail": radio.tail_w * did.tail_s + radio.wake_j * did.wakes,
    }


def total(parts: Mapping[Part, Figure]) -> Figure:
    """All parts together."""
    return sum(parts.values(), ZERO)


def ranged(board: Hardware, radio: Radio, joules_by_part: Mapping[str, float]) -> dict[str, Figure]:
    """Give joules that were counted with the middle figures the range of the figures behind them."""
    sending = radio.send_j_per_byte if radio.send_j_per_byte.mid > radio.send_w.mid else radio.send_w
    spans = {
        "idle": board.idle_w.relative,
        "sleep": board.sleep_w.relative,
        "compute": board.core_w.relative * _speed(board),
        "radio": sending.relative,
        "tail": radio.tail_w.relative if radio.tail_w.mid else radio.wake_j.relative,
    }
    return {part: spans[part] * value for part, value in joules_by_part.items()}


def _speed(board: Hardware) -> Figure:
    """How uncertain the time of computing is, around 1."""
    head = board.head_ms_per_mmac or next(iter(board.head_ms.values()))
    return head.relative
