"""Makes ``tests/golden/updates.json``: updates of format version 1, byte for byte.

    python -m tests.golden.make_updates

tests/compression/updates/test_golden.py holds both coders to these bytes. They change only with the format: raise
VERSION in compression/updates/codec.py, describe the new layout in docs/updates.md, and only then run this again. Drawn
with nothing but integers, so that no numpy changes them. zstandard may shrink a plane of floats in another way some
day, so the floats here are few and stay as they are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.compression.updates import Layout, Scheme, encode
from headwater.compression.updates.codec import VERSION
from headwater.compression.updates.integers import encode_integers

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILE = Path(__file__).with_name("updates.json")
SHAPES = {"bias": (5,), "conv": (4, 3, 3, 3), "last": (3, 8)}
LAYOUT = Layout(SHAPES)
BASE = bytes(range(200, 216))
SCHEMES = [
    Scheme("float32"),
    Scheme("float32", 0.1),
    Scheme("float16", 0.2),
    Scheme("int8"),
    Scheme("int8", 0.25),
    Scheme("ternary"),
    Scheme("ternary", 0.05),
    Scheme("sign"),
    Scheme("factors"),
    Scheme("factors", 0.4),
]
INTEGERS = [
    ("flags", [[3, 7, 1]], 1),
    ("signs", [[2, 9, 2]], 2),
    ("ternary, two arrays", [[4, 5, 3], [1, 6, 3]], 3),
    ("every magnitude", [[15, 17, 7]], 7),
]


def numbers(count: int) -> list[int]:
    """16-bit numbers from a linear congruential generator (Numerical Recipes)."""
    state, found = 1, []
    for _ in range(count):
        state = (state * 1664525 + 1013904223) % 2**32
        found.append(state >> 16)
    return found


def delta() -> dict[str, NDArray[np.float32]]:
    """Whole numbers over 4096, a few of them large."""
    drawn = iter(numbers(LAYOUT.size))
    large = [(each - 32768) * (64 if each % 7 == 0 else 1) for each in drawn]
    flat, found = np.array(large, np.float32) / 4096, {}
    for name, part in zip(LAYOUT.shapes, np.split(flat, [5, 113]), strict=True):
        found[name] = part.reshape(LAYOUT.shapes[name])
    return found


def mask() -> dict[str, NDArray[np.bool_]]:
    """Of one array, two coordinates in three."""
    return {"conv": (np.arange(108) % 3 != 0).reshape(SHAPES["conv"])}


def integers(alphabet: int, count: int) -> list[int]:
    """Of an alphabet; with sizes every magnitude once, the rest small."""
    drawn = numbers(count)
    if alphabet == 7:
        return [*range(-127, 128), *(each % 5 - 2 for each in drawn)][:count]
    return [{1: each % 2, 2: each % 2 * 2 - 1, 3: each % 3 - 1}[alphabet] for each in drawn]


def vectors() -> dict[str, Any]:
    """The whole file."""
    coded, updates = [], []
    for name, sides, alphabet in INTEGERS:
        values = integers(alphabet, sum(rows * columns for rows, columns, _ in sides))
        data = encode_integers(np.array(values, np.int8), None, np.array(sides, np.uint32), implementation="python")
        coded.append({"name": name, "sides": sides, "values": values, "data": data.hex()})
    for scheme in SCHEMES:
        for masked in (False, True):
            made = encode(delta(), LAYOUT, scheme, base=BASE, mask=mask() if masked else None)
            bits = {name: array.tobytes().hex() for name, array in made.decoded.items()}
            updates.append({"scheme": scheme.to_json(), "masked": masked, "data": made.data.hex(), "decoded": bits})
    shapes = {name: list(shape) for name, shape in SHAPES.items()}
    known = {name: each.ravel().astype(int).tolist() for name, each in mask().items()}
    both = {"integers": coded, "updates": updates}
    return {"version": VERSION, "shapes": shapes, "mask": known, "base": BASE.hex(), **both}


def text() -> str:
    """What the file holds."""
    return json.dumps(vectors(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
