"""What carries the bytes of a class of devices: the traces of trace.py with sleep, black-outs and bulk; and LoRa.

Each device has a :class:`Line`, a few numbers; the link's laws are shared by all of its class. Both directions are
queues: what is sent starts when it is there and what was before it has left, and ends when the trace has carried its
bytes. Rounds and roll-outs use what frames leave, in chunks of :data:`CHUNK_S`, and a frame waits for the end of the
chunk that is on the air, as device/courier.py does it.

    frame ── radio awake? ── behind what was before it ── chunk on the air ── trace carries it ── delay ──> server

LoRa: packets of at most so many bytes, of which each keeps the air for its time (Semtech, AN1200.13, "LoRa Modem
Designer's Guide") and the radio then silent until its share of the time, the duty cycle, is kept.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, Protocol

from headwater.simulations.trace import LinkTrace, Trace, load_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.simulations.fleet.radios import LoRa, Radio
    from headwater.simulations.fleet.scenario import Protocol as Overheads

CHUNK_S = 0.2
Gap = tuple[float, float]
"""From and to when a link carries nothing, s."""


class Bulk:
    """Bytes that go at low priority."""

    __slots__ = ("from_s", "left")

    def __init__(self, from_s: float, size: float) -> None:
        self.from_s = from_s
        """What has crossed by now is no longer in `left`."""
        self.left = size


class Line:
    """One device's link: until when each direction is taken, and when its radio was last used."""

    __slots__ = ("bulk_down", "bulk_up", "down_s", "last_s", "shift_s", "up_s")

    def __init__(self, shift_s: float) -> None:
        """``shift_s``: where in the trace it begins."""
        self.shift_s = shift_s
        self.up_s = self.down_s = self.last_s = 0.0
        self.bulk_up: Bulk | None = None
        self.bulk_down: Bulk | None = None


class Used:
    """What the links of a class were used for, summed."""

    __slots__ = ("down_bytes", "receive_s", "send_s", "tail_s", "up_bytes", "wakes")

    def __init__(self) -> None:
        self.send_s = self.receive_s = self.tail_s = 0.0
        self.up_bytes = self.down_bytes = 0.0
        self.wakes = 0


class Link(Protocol):
    """Carries what is given to it; times in s."""

    def up(self, line: Line, now_s: float, size: int) -> float:
        """When a frame of `size` bytes that is written now is at the server."""

    def down(self, line: Line, now_s: float) -> float:
        """When an answer that the server gives now is at the device."""

    def loss(self, size: int) -> float:
        """The chance that a frame is lost for good."""

    def rest(self, line: Line, end_s: float) -> None:
        """Count what a line did since it was last used."""


class _Radio:
    """Sleep and heartbeats, the same for all."""

    def __init__(self, radio: Radio, overheads: Overheads, used: Used) -> None:
        self._used = used
        self._awake_s, self._wake_s = radio.awake_s, radio.wake_ms / 1e3
        self._beat_s = None if radio.lora is not None else overheads.heartbeat_s
        self._beat_bytes = overheads.heartbeat_bytes
        self._up_delay_s, self._down_delay_s = radio.up_delay_ms / 1e3, radio.down_delay_ms / 1e3

    def _ready(self, line: Line, now_s: float) -> float:
        """When the radio can send or receive what is to cross from now on."""
        gap_s = now_s - line.last_s
        if self._beat_s is not None and gap_s >= self._beat_s:
            gap_s = self._beats(gap_s)
        if self._awake_s is None or gap_s <= 0:
            return now_s
        used = self._used
        if gap_s <= self._awake_s:
            used.tail_s += gap_s
            return now_s
        used.tail_s += self._awake_s
        used.wakes += 1
        return now_s + self._wake_s

    def rest(self, line: Line, end_s: float) -> None:
        """Count what a line did since it was last used."""
        gap_s = self._beats(end_s - line.last_s)
        if self._awake_s is not None:
            self._used.tail_s += min(max(gap_s, 0.0), self._awake_s)

    def _beats(self, gap_s: float) -> float:
        """Count the heartbeats of a pause; what is left of it after the last."""
        beat_s = self._beat_s
        if beat_s is None or gap_s < beat_s:
            return gap_s
        count, used = int(gap_s / beat_s), self._used
        used.up_bytes += count * self._beat_bytes
        used.down_bytes += count * self._beat_bytes
        if self._awake_s is not None:
            used.tail_s += count * min(beat_s, self._awake_s)
            used.wakes += count if beat_s > self._awake_s else 0
        return gap_s - count * beat_s


class RateLink(_Radio):
    """Bytes at the rate of a trace."""

    def __init__(
        self, trace: LinkTrace, radio: Radio, overheads: Overheads, used: Used, gaps: Sequence[Gap] = ()
    ) -> None:
        """``gaps``: black-outs, sorted, none in another."""
        super().__init__(radio, overheads, used)
        self.period_s = trace.up.period_s if len(trace.up) > 1 else 0.0
        """Until the trace begins again; 0 for a constant rate."""
        self._up, self._down = _Carrier(trace.up, gaps), _Carrier(trace.down, gaps)
        self._frame_bytes, self._answer_bytes = overheads.up_bytes, overheads.down_bytes

    def up(self, line: Line, now_s: float, size: int) -> float:
        """When a frame of `size` bytes that is written now is at the server."""
        used, wire_bytes = self._used, size + self._frame_bytes
        if line.bulk_up is not None:
            now_s = self._up.make_way(line.bulk_up, max(now_s, line.up_s), line.shift_s)
            line.last_s = max(line.last_s, line.bulk_up.from_s)
        start_s, taken_s = self._ready(line, now_s), line.up_s
        start_s = max(start_s, taken_s)
        line.up_s = line.last_s = end_s = self._up.carry(start_s, wire_bytes, line.shift_s)
        if line.bulk_up is not None:
            line.bulk_up.from_s = max(end_s, line.bulk_up.from_s)
        used.up_bytes += wire_bytes
        if end_s < math.inf:
            used.send_s += end_s - start_s
        return end_s + self._up_delay_s

    def down(self, line: Line, now_s: float) -> float:
        """When an answer that the server gives now is at the device."""
        used, sent_s = self._used, now_s + self._down_delay_s
        if line.bulk_down is not None:
            sent_s = self._down.make_way(line.bulk_down, max(sent_s, line.down_s), line.shift_s)
            line.last_s = max(line.last_s, line.bulk_down.from_s)
        start_s, taken_s = self._ready(line, sent_s), line.down_s
        start_s = max(start_s, taken_s)
        line.down_s = end_s = self._down.carry(start_s, self._answer_bytes, line.shift_s)
        line.last_s = max(line.last_s, end_s)
        if line.bulk_down is not None:
            line.bulk_down.from_s = max(end_s, line.bulk_down.from_s)
        used.down_bytes += self._answer_bytes
        if end_s < math.inf:
            used.receive_s += end_s - start_s
        return end_s

    def loss(self, size: int) -> float:  # noqa: ARG002 - of what crosses a stream nothing is lost
        """None: what is lost is sent again by TCP."""
        return 0.0

    def bulk_end(self, line: Line, *, up: bool) -> float:
        """When the bulk of a direction has crossed if nothing comes between."""
        bulk, carrier = (line.bulk_up, self._up) if up else (line.bulk_down, self._down)
        assert bulk is not None
        return carrier.carry(bulk.from_s, bulk.left, line.shift_s) if bulk.left > 0 else bulk.from_s

    def bulk_s(self, size: float, *, up: bool) -> float:
        """How long so many bytes keep the radio busy, at the mean rate."""
        return size * 8 / (self._up if up else self._down).mean_bits_per_s


class Segments(NamedTuple):
    """One direction of a trace, black-outs aside; see :meth:`headwater.simulations.trace.Trace.segments`."""

    ends: Sequence[float]
    bytes: Sequence[float]
    rates: Sequence[float]
    byte_s: float | None
    """Of a constant rate, what a byte takes."""


class _Carrier:
    """One direction of a trace with its black-outs."""

    def __init__(self, trace: Trace, gaps: Sequence[Gap]) -> None:
        self._trace = trace
        self._gaps = gaps
        self.mean_bits_per_s = trace.mean_bits_per_s
        self._finish = trace.finish
        steady = len(trace) == 1
        self._byte_s = (8 / trace.mean_bits_per_s if trace.mean_bits_per_s else math.inf) if steady else None
        """Of a constant rate."""
        self.carry = self._around_gaps if gaps else self._crossed
        """When bytes have crossed whose first starts then: of its start, how many, and where in the trace it begins."""

    @property
    def has_gaps(self) -> bool:
        """There are black-outs."""
        return bool(self._gaps)

    def segments(self) -> Segments:
        """What the compiled core carries by."""
        ends, crossed, rates = self._trace.segments()
        return Segments(ends, crossed, rates, self._byte_s)

    def _around_gaps(self, start_s: float, size: float, shift_s: float) -> float:
        for from_s, to_s in self._gaps:
            if start_s >= to_s:
                continue
            if start_s < from_s:
                end_s = self._crossed(start_s, size, shift_s)
                if end_s <= from_s:
                    return end_s
                size -= self.room(start_s, from_s, shift_s)
            start_s = to_s
        return self._crossed(start_s, size, shift_s)

    def _crossed(self, start_s: float, size: float, shift_s: float) -> float:
        if self._byte_s is not None:
            return start_s + size * self._byte_s
        return self._finish(start_s + shift_s, size) - shift_s if start_s < math.inf else math.inf

    def room(self, from_s: float, to_s: float, shift_s: float) -> float:
        """Bytes that could cross between two moments, black-outs aside."""
        return self._trace.capacity(to_s + shift_s) - self._trace.capacity(from_s + shift_s)

    def make_way(self, bulk: Bulk, now_s: float, shift_s: float) -> float:
        """When a frame may start, at the end of the chunk that is on the air; what crossed before it is counted."""
        if bulk.left <= 0 or now_s <= bulk.from_s:
            return now_s
        end_s = self.carry(bulk.from_s, bulk.left, shift_s)
        chunk_s = bulk.from_s + math.ceil((now_s - bulk.from_s) / CHUNK_S) * CHUNK_S
        if end_s <= chunk_s:
            bulk.from_s, bulk.left = end_s, 0.0
            return max(now_s, end_s)
        open_s = chunk_s - bulk.from_s - sum_of_gaps(self._gaps, bulk.from_s, chunk_s)
        if open_s > 0:
            bulk.left -= min(self.room(bulk.from_s, chunk_s, shift_s), bulk.left)
        bulk.from_s = chunk_s
        return chunk_s


def sum_of_gaps(gaps: Sequence[Gap], from_s: float, to_s: float) -> float:
    """How long of a time a link carries nothing."""
    return math.fsum(max(min(to_s, end) - max(from_s, begin), 0.0) for begin, end in gaps)


# ------------------------------------------------------------ LoRa


def airtime_s(lora: LoRa, size: int) -> float:
    """How long a packet that carries so many bytes is on the air, s; low data rate optimisation as the rules ask."""
    symbol_s: float = 2**lora.spreading_factor / lora.bandwidth_hz
    slow = 1 if symbol_s > 16e-3 else 0
    bits: int = 8 * (size + lora.header_bytes) - 4 * lora.spreading_factor + 28 + 16
    blocks: int = max(math.ceil(bits / (4 * (lora.spreading_factor - 2 * slow))), 0)
    return (lora.preamble_symbols + 4.25 + 8 + blocks * (lora.coding_rate + 4)) * symbol_s


class LoRaLink(_Radio):
    """Packets, and silence after each."""

    def __init__(self, radio: Radio, overheads: Overheads, used: Used, gaps: Sequence[Gap] = ()) -> None:
        """Of a radio with `lora`."""
        super().__init__(radio, overheads, used)
        assert radio.lora is not None
        self._lora, self._loss, self._gaps = radio.lora, radio.loss, gaps
        self._most = radio.lora.most_bytes
        self._airtimes_s = [airtime_s(radio.lora, size) for size in range(self._most + 1)]
        self._answer_s = airtime_s(radio.lora, min(radio.lora.answer_bytes, self._most))

    def packets(self, size: int) -> list[int]:
        """What each packet of a frame carries."""
        whole, rest = divmod(size, self._most)
        return [self._most] * whole + ([rest] if rest else [])

    def up(self, line: Line, now_s: float, size: int) -> float:
        """When the last packet of a frame is at the gateway."""
        used, end_s = self._used, now_s
        for carried in self.packets(size):
            start_s = self._open(max(self._ready(line, now_s), line.up_s))
            air_s = self._airtimes_s[carried]
            end_s = line.last_s = start_s + air_s
            line.up_s = start_s + air_s / self._lora.duty_cycle
            used.send_s += air_s
            used.up_bytes += carried + self._lora.header_bytes
        return end_s + self._up_delay_s

    def down(self, line: Line, now_s: float) -> float:
        """In the window in which the device listens, a while after it has sent."""
        used, start_s = self._used, self._open(now_s + self._down_delay_s)
        line.last_s = end_s = start_s + self._answer_s
        used.receive_s += self._answer_s
        used.down_bytes += self._lora.answer_bytes + self._lora.header_bytes
        return end_s

    def loss(self, size: int) -> float:
        """The chance that not all packets of a frame arrive."""
        return 1.0 - (1.0 - self._loss) ** len(self.packets(size)) if self._loss else 0.0

    def _open(self, time_s: float) -> float:
        return next((to_s for from_s, to_s in self._gaps if from_s <= time_s < to_s), time_s)


# ------------------------------------------------------------ of a scenario


def links_of(
    radio: Radio, overheads: Overheads, used: Used, gaps: Sequence[Gap], seed: int, rate: type[RateLink] = RateLink
) -> list[Link]:
    """The links that the devices of a class are spread over; raises :class:`DataError` for a damaged recording.

    ``rate``: what those with the rate of a trace are made of.
    """
    if radio.lora is not None:
        return [LoRaLink(radio, overheads, used, gaps)]
    return [rate(trace, radio, overheads, used, gaps) for trace in traces_of(radio, seed)]


def traces_of(radio: Radio, seed: int) -> list[LinkTrace]:
    """Of a radio without `lora`: a constant rate, recordings, or walks through its levels."""
    if radio.trace is not None:
        return load_folder(radio.trace, radio.trace_factor)
    if len(radio.levels) == 1:
        (level,) = radio.levels
        return [LinkTrace(radio.name, Trace.constant(level.up_bit_s), Trace.constant(level.down_bit_s))]
    return [_walk(radio, seed * 1000 + number) for number in range(radio.walks)]


def _walk(radio: Radio, seed: int) -> LinkTrace:
    """Both directions fade together: the same seed makes the same steps."""
    up = [(level.up_bit_s, level.stay_s) for level in radio.levels]
    down = [(level.down_bit_s, level.stay_s) for level in radio.levels]
    return LinkTrace(radio.name, Trace.markov(seed, up, radio.walk_s), Trace.markov(seed, down, radio.walk_s))
