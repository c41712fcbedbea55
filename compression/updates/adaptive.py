"""Small integers of an update into bytes, in plain Python: the reference for ``_rans_updates.c``, and its stand-in.

Every integer is a few yes-or-no questions: is it not zero, is it negative, how many bits has it, which. A question has
a context, a context learns how often its answer is yes, and range ANS (rans.py) codes the answers with what was learned
before them. Sender and receiver learn the same from the same answers, so that nothing of it is sent.

What is large in an update lies in the rows and columns of those neurons that learn: gradients of a layer are sums of
few products of one vector by another. So a magnitude is expected to be about

    mean of its row so far * mean of its column so far / mean of its array so far

and this expectation, in half octaves, is the context of the first question. On the update of a few steps of training
that leaves 0.3 bytes of each that the entropy of positions and signs has. All of it is integer arithmetic.

ANS gives back last what went in first, but a model learns forwards. So answers are collected, and when they are BLOCK
or a few more they go into a state of their own, the last one first. docs/updates.md has all of it as a specification.

This file is some thousand times slower than the C file and gives the same bytes, integers and errors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from headwater.compression.rans import LOW, WORD, Lane, Slots, Status

if TYPE_CHECKING:
    from collections.abc import Sequence

BLOCK = 1 << 20
"""Answers of a block, or a few more."""
LEVELS = 56
"""Of expectation, half an octave each; level 40 expects a magnitude of 1."""
NEAR = 4
SLOW, FAST = 1023, 255
"""Answers that a context remembers, about: of whether an integer is zero, and of all else."""
HAS_ZEROS, HAS_SIGNS, HAS_SIZES = 1, 2, 4
"""What an array's integers can be: with zeros alone 0 and 1, with signs alone -1 and 1, with sizes up to 127."""
FRACTIONS = (
    0,
    1,
    2,
    2,
    3,
    4,
    4,
    5,
    5,
    6,
    7,
    7,
    8,
    8,
    9,
    9,
    10,
    10,
    11,
    11,
    11,
    12,
    12,
    13,
    13,
    14,
    14,
    14,
    15,
    15,
    15,
    16,
)
"""16 * log2(1 + (i + 1/2) / 32), rounded: of the five bits after a number's first."""
_RATES = [2 * 65536 // (2 * seen + 3) for seen in range(SLOW + 1)]


def log_of(x: int) -> int:
    """16 * log2(x), near enough, of a positive number."""
    whole = x.bit_length() - 1
    return 16 * whole + FRACTIONS[(x << 5 >> whole) & 31]


@dataclass(slots=True)
class Bit:
    """What a context has learned."""

    one: int
    """Probability of a yes, times 2^32."""
    count: int = 2

    @property
    def yes(self) -> int:
        """Slots of a yes, 1 to 65535."""
        return self.one >> 16 or 1

    def learn(self, answer: int, memory: int) -> None:
        """Move towards an answer, the less the more were seen."""
        rate = _RATES[self.count]
        if answer:
            self.one += (0xFFFFFFFF - self.one) * rate >> 16
        else:
            self.one -= self.one * rate >> 16
        self.count += self.count < memory


class _Stream(Protocol):
    """One end of a stream of answers."""

    def ask(self, bit: Bit, memory: int, answer: int) -> int:
        """Code an answer; where it is being decoded, the one that is passed is ignored."""

    def go_on(self) -> None:
        """Begin a new block, if this one is full; called between integers."""


class _DamagedError(Exception):
    """Carries a `Status`."""


class _Writer:
    """Encodes."""

    def __init__(self) -> None:
        self.answers: list[Slots] = []
        self.out = bytearray()

    def ask(self, bit: Bit, memory: int, answer: int) -> int:
        yes = bit.yes
        self.answers.append(Slots(65536 - yes, yes) if answer else Slots(0, 65536 - yes))
        bit.learn(answer, memory)
        return answer

    def go_on(self) -> None:
        if len(self.answers) >= BLOCK:
            self.close()

    def close(self) -> None:
        """Push a block's answers from its end; its state and words follow what is there."""
        lane = Lane(LOW, [])
        for slots in reversed(self.answers):
            lane.push(slots)
        self.out += lane.state.to_bytes(8, "little")
        self.out += b"".join(word.to_bytes(WORD, "little") for word in reversed(lane.words))
        self.answers.clear()


class _Reader:
    """Decodes."""

    def __init__(self, data: bytes) -> None:
        whole = len(data) - len(data) % WORD
        self.rest = len(data) - whole
        self.lane = Lane(0, [int.from_bytes(data[i : i + WORD], "little") for i in range(0, whole, WORD)][::-1])
        self.open()

    def open(self) -> None:
        """Take a block's state."""
        if len(self.lane.words) < 2:
            raise _DamagedError(Status.TRUNCATED)
        self.lane.state = self.lane.words.pop() | self.lane.words.pop() << 32
        self.count = 0
        if self.lane.state >> 63:
            raise _DamagedError(Status.DAMAGED)

    def ask(self, bit: Bit, memory: int, answer: int) -> int:
        answer = self.lane.pull_answer(65536 - bit.yes)
        self.count += 1
        bit.learn(answer, memory)
        return answer

    def go_on(self) -> None:
        if self.count >= BLOCK:
            self._check_state()
            self.open()

    def close(self) -> None:
        """The last block ends with the data, in the state in which its encoder began."""
        if self.lane.words or self.rest:
            raise _DamagedError(Status.TRAILING)
        self._check_state()

    def _check_state(self) -> None:
        if self.lane.state != LOW:
            raise _DamagedError(Status.DAMAGED)


class Integers(NamedTuple):
    """One array."""

    values: list[int]
    """[rows * columns]; where it is decoded, zeros that are written to."""
    live: Sequence[int] | None
    """[rows * columns], 0 where both ends know a zero, which is not coded; None: nowhere."""
    rows: int
    columns: int
    alphabet: int


def _half(level: int) -> int:
    """Probability to begin with: what is expected, at most a half, in whole octaves."""
    return (1 << 31) >> ((38 - level) // 2 if level < 38 else 0)


@dataclass
class _Model:
    """All contexts, and what was seen of all arrays so far."""

    stream: _Stream
    zero: list[list[Bit]] = field(default_factory=lambda: [[Bit(_half(i)) for _ in range(NEAR)] for i in range(LEVELS)])
    sign: list[list[Bit]] = field(default_factory=lambda: [[Bit(1 << 31) for _ in range(7)] for _ in range(7)])
    longer: list[list[Bit]] = field(default_factory=lambda: [[Bit(1 << 31) for _ in range(7)] for _ in range(LEVELS)])
    tail: list[list[Bit]] = field(default_factory=lambda: [[Bit(1 << 31) for _ in range(64)] for _ in range(8)])
    sum: int = 0
    seen: int = 0

    def code(self, alphabet: int, level: int, near: int, signs: tuple[int, int], value: int) -> int:
        """One integer, given what is expected of it."""
        if alphabet & HAS_ZEROS and not self.stream.ask(self.zero[level][near], SLOW, value != 0):
            return 0
        negative = 0
        if alphabet & HAS_SIGNS:
            negative = self.stream.ask(self.sign[signs[0] + 3][signs[1] + 3], FAST, value < 0)
        magnitude = self.code_magnitude(level, abs(value)) if alphabet & HAS_SIZES else 1
        return -magnitude if negative else magnitude

    def code_magnitude(self, level: int, magnitude: int) -> int:
        """Its length in unary, then the bits after its first."""
        length, bits = 1, magnitude.bit_length()
        while length < 7 and self.stream.ask(self.longer[level][length], FAST, bits > length):
            length += 1
        value = 1
        for left in reversed(range(length - 1)):
            value = value << 1 | self.stream.ask(self.tail[length][value], FAST, magnitude >> left & 1)
        return value

    def code_array(self, array: Integers) -> None:
        """All integers of an array, row by row."""
        columns, column_signs = [0] * array.columns, [0] * array.columns
        prior = (self.sum * 65536 + 32768) // (self.seen + 200)
        total = 0
        for row in range(array.rows):
            mean = (total * 65536 + prior * 50) // (row * array.columns + 50) or 1
            found = self.code_row(array, row, mean, columns, column_signs)
            total += found
            self.sum += found
            self.seen += array.columns

    def code_row(self, array: Integers, row: int, mean: int, columns: list[int], column_signs: list[int]) -> int:
        """The integers of a row; gives the sum of their magnitudes."""
        values, width, begin = array.values, array.columns, row * array.columns
        fixed, of_row, row_sum, row_sign = 64 - log_of(row + 2) - log_of(mean), log_of(2 * mean), 0, 0
        for i in range(width):
            at = begin + i
            if array.live is not None and not array.live[at]:
                continue
            self.stream.go_on()
            of_column = log_of(columns[i] * 65536 + 2 * mean)
            level = min(max((fixed + of_row + of_column - log_of(i + 2)) >> 3, 0), LEVELS - 1)
            beside = (abs(values[at - 1]) if i else 0) + (abs(values[at - width]) if row else 0)
            near = min(beside.bit_length(), NEAR - 1)
            values[at] = value = self.code(array.alphabet, level, near, (row_sign, column_signs[i]), values[at])
            if value:
                row_sum += abs(value)
                of_row = log_of(row_sum * 65536 + 2 * mean)
                row_sign = _toward(row_sign, value)
                columns[i] += abs(value)
                column_signs[i] = _toward(column_signs[i], value)
        return row_sum


def _toward(memory: int, value: int) -> int:
    """A memory of signs, -3 to 3, after one more."""
    return min(memory + 1, 3) if value > 0 else max(memory - 1, -3)


def encode_integers(arrays: Sequence[Integers]) -> bytes:
    """Encode arrays one after the other."""
    writer = _Writer()
    model = _Model(writer)
    for array in arrays:
        model.code_array(array)
    writer.close()
    return bytes(writer.out)


def decode_integers(data: bytes, arrays: Sequence[Integers]) -> Status:
    """Decode arrays into their own values, which have to be 0 before."""
    try:
        reader = _Reader(data)
        model = _Model(reader)
        for array in arrays:
            model.code_array(array)
        reader.close()
    except _DamagedError as error:
        return Status(error.args[0])
    return Status.OK
