"""The entropy coder in plain Python: the reference for ``_rans.c``, and its stand-in where no compiler was.

Range ANS (Duda 2013, arXiv:1311.2540) keeps a whole message in one number, the state x. A symbol that owns f of the
65536 slots, the first of them s, is pushed by

    x = (x // f) * 65536 + s + x % f

and pulled by finding the owner of slot x % 65536 and undoing this. A push makes x grow by 65536 / f, that is by the
symbol's information: likely symbols cost little. What is pushed last is pulled first, so the encoder goes through a
latent from its end.

x is kept below 2^63. Before a push would lift it there, its low 32 bits move out as a word; when a pull leaves it below
2^31, the next word moves in. A frame's state starts at 0, where pushing the symbol that owns slot 0 leaves it at 0: a
run of a channel's likeliest symbol at the end of a frame takes no bits. The decoder of a whole frame has to end at 0
too, with all words read. This notices some damage for free, not all: frame.py adds a checksum.

A mode with large frames has two states, for the even and the odd symbols of each channel, over one stream of words. A
processor works on both at a time. They start at 2^31, so that each reads its words where it wrote them.

This file is about 200 times slower than ``_rans.c`` and gives the same bytes, symbols and errors.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwater.compression.tables import PriorTables

SLOT_BITS = 16
LOW = 1 << 31
"""A state below it takes the next word in."""
WORD = 4
"""Bytes of a word."""
LENGTH_BITS = 5
"""After ESCAPE: how many bits the distance has, 0 to 17."""
MAX_ESCAPE_BITS = 17


class Status(IntEnum):
    """What decoding can find; the numbers are those of ``_rans.c``."""

    OK = 0
    TRUNCATED = 1
    TRAILING = 2
    DAMAGED = 3
    BAD_ESCAPE = 4


class _BadEscapeError(Exception):
    """An escaped symbol that no encoder writes."""


class Slots(NamedTuple):
    """The slots of one symbol."""

    start: int
    frequency: int


@dataclass(frozen=True)
class Table:
    """A channel's symbols in the order in which they own the slots: falling frequency, then rising symbol."""

    low: int
    high: int
    frequencies: tuple[int, ...]
    """[n + 1]: of the symbols low .. high, and of ESCAPE last."""

    @cached_property
    def order(self) -> list[int]:
        """Indices into `frequencies`, as they own the slots."""
        return sorted(range(len(self.frequencies)), key=lambda index: (-self.frequencies[index], index))

    @cached_property
    def starts(self) -> list[int]:
        """First slot of each index in `order`."""
        return list(accumulate((self.frequencies[index] for index in self.order[:-1]), initial=0))

    @cached_property
    def slots(self) -> dict[int, Slots]:
        """Slots of each index."""
        return {i: Slots(start, self.frequencies[i]) for i, start in zip(self.order, self.starts, strict=True)}

    @property
    def escape(self) -> int:
        """ESCAPE's index."""
        return len(self.frequencies) - 1


class Lane:
    """One state, and the words that it shares with other lanes."""

    def __init__(self, state: int, words: list[int]) -> None:
        """Begin from a state. `words` is a stack: the encoder pushes on it what the decoder pops."""
        self.state = state
        self.words = words

    def _push(self, frequency: int, bits: int) -> None:
        if self.state >= frequency << (63 - bits):
            self.words.append(self.state & 0xFFFFFFFF)
            self.state >>= 32

    def _pull(self) -> None:
        if self.state < LOW and self.words:
            self.state = self.state << 32 | self.words.pop()

    def push(self, slots: Slots) -> None:
        """Push a symbol that owns these slots."""
        self._push(slots.frequency, SLOT_BITS)
        quotient, rest = divmod(self.state, slots.frequency)
        self.state = (quotient << SLOT_BITS) + slots.start + rest

    def pull(self, table: Table) -> int:
        """Pull an index of the table."""
        slot = self.state & 0xFFFF
        position = bisect_right(table.starts, slot) - 1
        index = table.order[position]
        self.state = table.frequencies[index] * (self.state >> SLOT_BITS) + slot - table.starts[position]
        self._pull()
        return index

    def pull_answer(self, no: int) -> bool:
        """Pull a yes or no, of which no owns the first so many slots and yes the others."""
        slot = self.state & 0xFFFF
        yes = slot >= no
        first, frequency = (no, 0x10000 - no) if yes else (0, no)
        self.state = frequency * (self.state >> SLOT_BITS) + slot - first
        self._pull()
        return yes

    def push_raw(self, value: int, bits: int) -> None:
        """Push a number of so many bits."""
        self._push(1, bits)
        self.state = self.state << bits | value

    def pull_raw(self, bits: int) -> int:
        """Pull a number of so many bits."""
        value = self.state & ((1 << bits) - 1)
        self.state >>= bits
        self._pull()
        return value

    def push_symbol(self, table: Table, symbol: int) -> None:
        """Push a symbol, through ESCAPE if it is not in the table."""
        if table.low <= symbol <= table.high:
            self.push(table.slots[symbol - table.low])
            return
        distance = 2 * (symbol - table.high - 1) if symbol > table.high else 2 * (table.low - 1 - symbol) + 1
        bits = distance.bit_length()
        if bits > 1:
            self.push_raw(distance - (1 << (bits - 1)), bits - 1)  # its leading one goes without saying
        self.push_raw(bits, LENGTH_BITS)
        self.push(table.slots[table.escape])

    def pull_symbol(self, table: Table) -> int:
        """Pull a symbol."""
        index = self.pull(table)
        if index < table.escape:
            return table.low + index
        bits = self.pull_raw(LENGTH_BITS)
        if bits > MAX_ESCAPE_BITS:
            raise _BadEscapeError
        distance = 1 << (bits - 1) | self.pull_raw(bits - 1) if bits > 1 else bits
        steps, below = divmod(distance, 2)
        symbol = table.low - 1 - steps if below else table.high + 1 + steps
        if not -0x8000 <= symbol <= 0x7FFF:
            raise _BadEscapeError
        return symbol


class Rans:
    """Coder of the frames of one bundle. Arguments are not checked: see `headwater.compression.coder.Coder`."""

    def __init__(self, tables: PriorTables, plane: int) -> None:
        """Take the tables; `plane` is H * W."""
        self.tables = tables
        self.plane = plane
        self._modes: dict[int, list[Table]] = {}

    def _tables(self, mode: int) -> list[Table]:
        if mode not in self._modes:
            pairs = [self.tables.table(mode, channel) for channel in range(self.tables.mode_channels[mode])]
            self._modes[mode] = [Table(low, low + f.size - 2, tuple(f.tolist())) for low, f in pairs]
        return self._modes[mode]

    def encode(self, symbols: NDArray[np.int16], mode: int) -> tuple[bytes, tuple[int, ...]]:
        """Encode symbols [C_w, H, W]; gives the payload and, for each group, the bytes up to its end."""
        tables, words = self._tables(mode), list[int]()
        lanes = [Lane(0, words)] if self.tables.lanes[mode] == 1 else [Lane(LOW, words), Lane(LOW, words)]
        planes = symbols.reshape(len(tables), self.plane).tolist()
        words_from = {}  # how many words hold what follows the beginning of a channel
        for channel in reversed(range(len(tables))):
            for i in reversed(range(self.plane)):
                lanes[i % len(lanes)].push_symbol(tables[channel], planes[channel][i])
            words_from[channel] = len(words)
        payload = _close(lanes)
        return payload, tuple(len(payload) - WORD * words_from.get(end, 0) for end in self.tables.group_ends.tolist())

    def decode(self, payload: bytes, mode: int, groups: int, out: NDArray[np.int16]) -> int:
        """Decode the first groups into out [channels, H, W]; gives a `Status`."""
        status, planes = self._decode(payload, mode, groups)
        if status == Status.OK:
            out[:] = np.array(planes, np.int16).reshape(out.shape)
        return status

    def decode_batch(
        self, payloads: Sequence[bytes], modes: Sequence[int], groups: Sequence[int], out: NDArray[np.float32]
    ) -> tuple[int, ...]:
        """Decode and dequantise into out [B, C, H, W]; gives a `Status` each. A frame of 0 groups is all zeros."""
        out[:] = 0
        found = []
        for payload, mode, count, row in zip(payloads, modes, groups, out, strict=True):
            status, planes = self._decode(payload, mode, count)
            found.append(status)
            if status == Status.OK and planes:
                latent = np.array(planes, np.float32) * self.tables.step[mode, : len(planes), None]
                row[: len(planes)] = latent.reshape(-1, *row.shape[1:])
        return tuple(found)

    def _decode(self, payload: bytes, mode: int, groups: int) -> tuple[Status, list[list[int]]]:
        """Symbols [channels][H * W] of the first groups."""
        tables = self._tables(mode)
        channels = self.tables.channels_of(mode, groups) if groups else 0
        count = int(self.tables.lanes[mode])
        status, lanes = _open(payload, count)
        if status != Status.OK:
            return status, []
        try:
            planes = [[lanes[i % count].pull_symbol(table) for i in range(self.plane)] for table in tables[:channels]]
        except _BadEscapeError:
            return Status.BAD_ESCAPE, []
        return _check_end(lanes) if channels == len(tables) else Status.OK, planes


def _close(lanes: list[Lane]) -> bytes:
    """Payload of a finished encoder: the first lane's state in few bytes, the second's in 8, the words."""
    first, *second = lanes
    least = 5 if first.words or second else 0
    head = first.state.to_bytes(max(least, (first.state.bit_length() + 7) // 8), "little")
    rest = b"".join(lane.state.to_bytes(8, "little") for lane in second)
    return head + rest + b"".join(word.to_bytes(WORD, "little") for word in reversed(first.words))


def _open(payload: bytes, count: int) -> tuple[Status, list[Lane]]:
    """Lanes to decode a payload with. Its length modulo 4 gives that of the first state."""
    extra = 8 * (count - 1)
    size = len(payload) - extra
    if count == 2 and size < 5:
        return Status.TRUNCATED, []
    head = size if size <= 8 else 5 + (size - 5) % WORD
    body = payload[head + extra :]
    words = [int.from_bytes(body[i : i + WORD], "little") for i in range(0, len(body), WORD)][::-1]
    parts = (payload[:head], payload[head : head + extra])[:count]
    lanes = [Lane(int.from_bytes(part, "little"), words) for part in parts]
    damaged = any(lane.state >> 63 for lane in lanes)
    return Status.DAMAGED if damaged else Status.OK, lanes


def _check_end(lanes: list[Lane]) -> Status:
    """A whole frame ends with all words read and every state where its encoder began."""
    if lanes[0].words:
        return Status.TRAILING
    start = LOW if len(lanes) == 2 else 0
    return Status.OK if all(lane.state == start for lane in lanes) else Status.DAMAGED
