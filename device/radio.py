"""What radios draw, by kind: the one table of it, for the agent's choices and for the simulation of fleets.

A radio is modelled by what it adds to the board beside it: a power while it sends or receives, an energy for each byte,
an energy to wake and report to the network, and a *tail*, the power that it keeps drawing for seconds after its last
byte, until the network lets it sleep. Every figure has a range: networks, distances and chips differ by more than any
measurement of one of them is off. Sources:

- **3g, lte, wifi**: Huang et al., "A Close Examination of Performance and Power Characteristics of 4G LTE Networks",
  MobiSys 2012, tables 3 and 4, of phones of that year, as other papers quote them: base power 818, 1288 and
  133 mW; uplink 869, 438 and 283 nJ a bit, downlink 122, 52 and 137; waking 0.58 s at 659.4 mW,
  0.26 s at 1210.7 mW and 79 ms at 124.4 mW; tail 8.1 s at 803.9 mW, 11.6 s at 1060 mW and 0.24 s at 119.3 mW. The
  ranges, half to one and a half of each, are ours: modems have become better, and cells differ.
- **lte-m**: Nordic Semiconductor, nRF9160 product specification, modem current: an uplink of 180 kbit/s draws 45 mA at
  0 dBm, 50 to 55 at 10 dBm and 100 to 115 at 23 dBm, at 3.7 V; an update of the tracking area 105 mJ in 1.5 s, which
  is 70 mW on average and stands for waking and for the tail. A network keeps a connection for about 10 s after the last
  byte; Nordic's own example is 3 s, and 20 s is usual too.
- **nb-iot**: the same page: 35 to 40 mA at 0 dBm, 40 to 45 mA at 10 dBm, of which a third of the time sends; 550 mJ in
  2.7 s for an update. What it draws while it sends at 23 dBm is derived by LTE-M's ratio; hence the wide range.
- **lora**: Semtech, SX1276/77/78/79 datasheet, table 6: 29 mA at 13 dBm, 87 mA at 17 dBm, 11.5 mA receiving, 0.2 uA
  asleep, at 3.3 V. A device of class A listens twice after it has sent, for some tens of ms: its energy to wake.
  Nothing is paid by the byte but the time on the air.
- **5g**: derived, no table of it at hand: Xu et al., "Understanding Operational 5G", SIGCOMM 2020, found two to three
  times LTE's power; Narayanan et al., "A Variegated Look at 5G in the Wild", SIGCOMM 2021, that in a low band, and for
  little data, it is about LTE's. So the range goes from LTE's to three times that.
- **none**: a cable, which costs nothing beside the board.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from headwater.device.figure import ZERO, Figure

if TYPE_CHECKING:
    from collections.abc import Mapping

RadioKind = Literal["wifi", "lte", "lte-m", "nb-iot", "lora", "3g", "5g", "none"]

_HUANG = "Huang et al., MobiSys 2012; range derived"
_NORDIC = "nRF9160 product specification"
_SEMTECH = "SX1276 datasheet"
_DERIVED = "derived from LTE"


@dataclass(frozen=True)
class Radio:
    """What a radio adds to the board."""

    kind: RadioKind
    send_w: Figure
    """While it sends."""
    send_j_per_byte: Figure
    receive_w: Figure
    """While it receives."""
    receive_j_per_byte: Figure
    wake_j: Figure
    """To leave its sleep, and to tell the network so."""
    tail_w: Figure
    """After the last byte, until it sleeps."""
    tail_s: Figure
    """How long that lasts at most."""


def _phone(kind: RadioKind, base_w: float, bit_nj: tuple[float, float], wake_j: float, tail: Figure, s: float) -> Radio:
    """One of Huang's table: everything known by its middle."""

    def about(mid: float) -> Figure:
        return Figure(0.5 * mid, mid, 1.5 * mid, _HUANG)

    up, down = (about(8e-9 * each) for each in bit_nj)
    return Radio(kind, about(base_w), up, about(base_w), down, about(wake_j), tail, about(s))


_LTE_TAIL = Figure(0.5, 1.06, 1.6, _HUANG)
_LTE = _phone("lte", 1.288, (438, 52), 0.2601 * 1.2107, _LTE_TAIL, 11.576)

RADIOS: Mapping[RadioKind, Radio] = MappingProxyType(
    {
        "wifi": _phone("wifi", 0.133, (283, 137), 0.0791 * 0.1244, Figure(0.06, 0.1193, 0.18, _HUANG), 0.238),
        "lte": _LTE,
        "3g": _phone("3g", 0.818, (869, 122), 0.582 * 0.6594, Figure(0.4, 0.8039, 1.2, _HUANG), 8.088),
        "5g": Radio(
            "5g",
            Figure(1.288, 2.6, 3.9, _DERIVED),
            Figure(4.4e-7, 3.507e-6, 5.3e-6, _DERIVED),
            Figure(1.288, 2.6, 3.9, _DERIVED),
            Figure(5.2e-8, 4.158e-7, 6.3e-7, _DERIVED),
            Figure(0.3, 0.6, 0.9, _DERIVED),
            Figure(0.5, 1.5, 3.2, _DERIVED),
            Figure(5.0, 10.0, 20.0, _DERIVED),
        ),
        "lte-m": Radio(
            "lte-m",
            Figure(0.167, 0.3, 0.43, _NORDIC),
            ZERO,
            Figure(0.1, 0.167, 0.2, f"{_NORDIC}; receiving as sending at 0 dBm"),
            ZERO,
            Figure(0.05, 0.105, 0.21, _NORDIC),
            Figure(0.02, 0.07, 0.12, f"{_NORDIC}; range derived"),
            Figure(3.0, 10.0, 20.0, "the network's choice"),
        ),
        "nb-iot": Radio(
            "nb-iot",
            Figure(0.13, 0.3, 0.7, f"{_NORDIC}; 23 dBm derived"),
            ZERO,
            Figure(0.1, 0.14, 0.2, f"{_NORDIC}; receiving as sending at 0 dBm"),
            ZERO,
            Figure(0.27, 0.55, 1.1, f"{_NORDIC}; range derived"),
            Figure(0.02, 0.07, 0.2, f"{_NORDIC}; range derived"),
            Figure(3.0, 10.0, 20.0, "the network's choice"),
        ),
        "lora": Radio(
            "lora",
            Figure(0.096, 0.166, 0.287, f"{_SEMTECH}; 13 to 17 dBm"),
            ZERO,
            Figure(0.036, 0.038, 0.04, _SEMTECH),
            ZERO,
            Figure(0.001, 0.004, 0.012, f"{_SEMTECH}; two windows of 30 to 160 ms"),
            ZERO,
            ZERO,
        ),
        "none": Radio("none", *7 * (ZERO,)),
    }
)
