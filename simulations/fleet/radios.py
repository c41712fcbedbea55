"""What links a fleet can have, as data: rates, delays, sleep, packets. links.py carries bytes by it.

The ready ones are middling figures of each technology, to begin with where nothing was measured:

- ``cable`` 100 Mbit/s.
- ``wifi`` 802.11n at 2.4 GHz through a wall or two; a station that is busy or far falls to a tenth.
- ``5g``, ``lte``, ``3g`` what one phone gets in a city, by drive tests: tens of Mbit/s with 10 ms, some Mbit/s with
  25 ms, some hundred kbit/s with 60 ms one way; black spots in between. LTE's radio stays connected 11.6 s after its
  last byte and takes 260 ms to connect again (Huang et al., MobiSys 2012, table 3).
- ``lte-m`` Cat-M1, half duplex: 375 kbit/s up, 300 down at best, and repetitions at the cell's edge (3GPP TS 36.306).
- ``nb-iot`` Cat-NB1: 62 kbit/s up, 26 down at best, a second or more each way with repetitions.
- ``lora`` LoRaWAN class A in Europe, spreading factor 7, 125 kHz, 1 % duty cycle, an answer a second after the frame
  (LoRaWAN regional parameters RP002).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from headwater.compression.errors import SettingsError
from headwater.compression.settings import between, nearest

Kind = Literal["cable", "wifi", "5g", "lte", "3g", "lte-m", "nb-iot", "lora"]
"""What the energy of a byte is looked up by."""


@dataclass(frozen=True)
class Level:
    """A state of a link that fades."""

    up_bit_s: float
    down_bit_s: float
    stay_s: float = 1.0
    """Mean time until it changes to a neighbouring state."""

    def __post_init__(self) -> None:
        """Check the ranges; raises :class:`SettingsError`."""
        between("up_bit_s", self.up_bit_s, 0, 1e12)
        between("down_bit_s", self.down_bit_s, 0, 1e12)
        between("stay_s", self.stay_s, 1e-3, 1e6)


@dataclass(frozen=True)
class LoRa:
    """A radio that sends packets, and may send a share of the time only."""

    spreading_factor: int = 7
    """7, the fastest, to 12."""
    bandwidth_hz: float = 125_000.0
    coding_rate: int = 1
    """1 to 4: so many bits of correction to four of data."""
    preamble_symbols: int = 8
    duty_cycle: float = 0.01
    """Share of the time that it may send."""
    header_bytes: int = 13
    """Of each packet, beside what it carries: MAC header, port, check."""
    answer_bytes: int = 12
    """Of an answer: the class, how sure, and of what."""
    packet_bytes: int | None = None
    """That a packet carries at most; None for what the spreading factor allows in Europe."""

    def __post_init__(self) -> None:
        """Check the ranges; raises :class:`SettingsError`."""
        between("spreading_factor", self.spreading_factor, 7, 12)
        between("bandwidth_hz", self.bandwidth_hz, 7_800, 500_000)
        between("coding_rate", self.coding_rate, 1, 4)
        between("preamble_symbols", self.preamble_symbols, 6, 65_535)
        between("duty_cycle", self.duty_cycle, 1e-5, 1)
        between("header_bytes", self.header_bytes, 0, 100)
        between("answer_bytes", self.answer_bytes, 1, 51)
        if self.packet_bytes is not None:
            between("packet_bytes", self.packet_bytes, 1, 255 - self.header_bytes)

    @property
    def most_bytes(self) -> int:
        """That a packet carries (RP002, EU863-870 without repeaters)."""
        by_factor = {7: 242, 8: 242, 9: 115, 10: 51, 11: 51, 12: 51}
        return by_factor[self.spreading_factor] if self.packet_bytes is None else self.packet_bytes


@dataclass(frozen=True)
class Radio:
    """A kind of link; each device has one of its own, at another moment of the same weather."""

    name: str
    kind: Kind
    levels: tuple[Level, ...] = ()
    """One: a constant rate. More: a walk between neighbours, in order of their rates. None: see `trace` and `lora`."""
    trace: Path | None = None
    """Folder of recorded links in Mahimahi's format, NAME.up and NAME.down; devices are spread over them."""
    trace_factor: float = 1.0
    """Times the recorded rates."""
    lora: LoRa | None = None
    up_delay_ms: float = 0.0
    """From a byte's leaving the device's radio to its arrival at the server."""
    down_delay_ms: float = 0.0
    wake_ms: float = 0.0
    """What a radio that sleeps takes until it can send."""
    awake_s: float | None = None
    """How long it stays awake after its last byte; None: always."""
    loss: float = 0.0
    """Share of the packets of `lora` that are lost, and not sent again."""
    walks: int = 8
    """How many different walks through `levels` the devices are spread over."""
    walk_s: float = 600.0
    """How long a walk is before it begins again."""

    def __post_init__(self) -> None:
        """Check the ranges, and that there is one thing to carry bytes; raises :class:`SettingsError`."""
        ways = [bool(self.levels), self.trace is not None, self.lora is not None]
        if sum(ways) != 1:
            raise SettingsError(f"the link {self.name} needs exactly one of levels, trace and lora")
        between("trace_factor", self.trace_factor, 1e-6, 1e6)
        between("up_delay_ms", self.up_delay_ms, 0, 1e6)
        between("down_delay_ms", self.down_delay_ms, 0, 1e6)
        between("wake_ms", self.wake_ms, 0, 1e6)
        between("walks", self.walks, 1, 1000)
        between("walk_s", self.walk_s, 1, 1e6)
        between("loss", self.loss, 0, 1)
        if self.awake_s is not None:
            between("awake_s", self.awake_s, 0, 1e6)
        if self.loss and self.lora is None:
            raise SettingsError(f"the link {self.name} has a loss, but only packets of lora are lost for good")


def _fading(
    kind: Kind, delay_ms: float, *levels: tuple[float, float, float], wake_ms: float = 0.0, awake_s: float | None = None
) -> dict[str, Any]:
    """A table of levels of (kbit/s up, kbit/s down, seconds), with the same delay each way."""
    rows = [{"up_bit_s": up * 1e3, "down_bit_s": down * 1e3, "stay_s": stay} for up, down, stay in levels]
    sleep = {} if awake_s is None else {"wake_ms": wake_ms, "awake_s": awake_s}
    return {"kind": kind, "levels": rows, "up_delay_ms": delay_ms, "down_delay_ms": delay_ms, **sleep}


READY: dict[str, dict[str, Any]] = {
    "cable": _fading("cable", 0.5, (1e5, 1e5, 1)),
    "wifi": _fading("wifi", 3.0, (2_000, 2_000, 2), (10_000, 10_000, 10), (20_000, 20_000, 20)),
    "5g": _fading("5g", 10.0, (0, 0, 0.2), (5e3, 2e4, 5), (2e4, 1e5, 15), (4e4, 2e5, 15), wake_ms=100.0, awake_s=10.0),
    "lte": _fading(
        "lte", 25.0, (0, 0, 0.5), (500, 1e3, 5), (2e3, 6e3, 15), (5e3, 15e3, 15), wake_ms=260.0, awake_s=11.6
    ),
    "3g": _fading("3g", 60.0, (0, 0, 0.5), (64, 200, 5), (250, 800, 15), wake_ms=580.0, awake_s=8.0),
    "lte-m": _fading(
        "lte-m", 50.0, (0, 0, 1), (30, 40, 20), (150, 150, 60), (375, 300, 60), wake_ms=300.0, awake_s=10.0
    ),
    "nb-iot": _fading("nb-iot", 600.0, (2, 2, 20), (20, 15, 60), (62, 26, 60), wake_ms=1500.0, awake_s=20.0),
    "lora": {"kind": "lora", "lora": {}, "down_delay_ms": 1000.0, "awake_s": 2.0},
}
"""By name, as tables of a scenario would write them."""


def table_of(name: str) -> dict[str, Any]:
    """A ready link as a table; raises :class:`SettingsError`."""
    if name not in READY:
        raise SettingsError(f"there is no ready link {name}; {nearest(name, READY)}")
    return {"name": name, **READY[name]}
