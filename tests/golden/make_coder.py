"""Makes ``tests/golden/coder.json``: frames of format version 1, byte for byte.

    python -m tests.golden.make_coder

tests/compression/test_golden.py holds both coders to these bytes. They change only with the format: raise VERSION in
compression/frame.py, describe the new layout in docs/wire-format.md, and only then run this again. Written by the
Python coder, the reference; drawn with nothing but integers, so that no numpy changes them.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.compression.coder import Coder
from headwater.compression.frame import Frame, FrameCodec
from headwater.compression.parts import split
from headwater.compression.tables import PriorTables

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = Path(__file__).with_name("coder.json")
BUNDLE_ID = bytes(range(100, 132))
HEIGHT, WIDTH = 3, 5
GROUP_ENDS = [1, 3]
OPINIONS = 200
MODES: list[tuple[int, list[tuple[int, list[int]]]]] = [
    # lanes, then a channel's low and frequencies, the last one ESCAPE's
    (1, [(-1, [5000, 55000, 5000, 536])]),
    (1, [(-2, [100, 9000, 48000, 8000, 400, 36]), (0, [65535, 1]), (-1, [1, 65533, 1, 1])]),
    (
        2,
        [
            (-3, [3000, 7000, 12000, 20000, 12000, 7000, 4000, 536]),
            (5, [32768, 32000, 768]),
            (-1, [20000, 25000, 20000, 536]),
        ],
    ),
]
FRAMES = [
    ("the likeliest symbols take no byte", 0, "likeliest"),
    ("a single symbol", 0, "single"),
    ("symbols as the table has them", 0, "drawn"),
    ("three channels, two groups", 1, "drawn"),
    ("escapes at the limits of int16", 1, "limits"),
    ("two lanes", 2, "drawn"),
    ("two lanes, escapes", 2, "limits"),
]


def tables() -> PriorTables:
    """Three modes of three channels; the first has one channel only."""
    channels = [mode + [(0, [])] * (3 - len(mode)) for _, mode in MODES]
    flat = [table for mode in channels for table in mode]
    ones = np.ones((3, 3), np.float32)
    return PriorTables.from_arrays(
        {
            "frequencies": np.array([f for _, frequencies in flat for f in frequencies], np.uint16),
            "starts": np.cumsum([0, *(len(frequencies) for _, frequencies in flat)]).astype(np.uint32),
            "low": np.array([low for low, _ in flat], np.int16),
            "gain": ones,
            "step": ones / 2,
            "group_ends": np.array(GROUP_ENDS, np.uint8),
            "lanes": np.array([lanes for lanes, _ in MODES], np.uint8),
        }
    )


def numbers() -> Iterator[int]:
    """16-bit numbers from a linear congruential generator (Numerical Recipes)."""
    state = 1
    while True:
        state = (state * 1664525 + 1013904223) % 2**32
        yield state >> 16


def symbols(mode: int, what: str) -> list[int]:
    """A latent [C_w * H * W] of one of the kinds in FRAMES."""
    source, found = numbers(), []
    for low, frequencies in MODES[mode][1]:
        for i in range(HEIGHT * WIDTH):
            slot, index = next(source), 0
            while what == "drawn" and slot >= frequencies[index]:
                slot, index = slot - frequencies[index], index + 1
            if what != "drawn":
                index = frequencies.index(max(frequencies))
            escaped = index == len(frequencies) - 1
            found.append(low + len(frequencies) + slot % 50 if escaped else low + index)
            if (what, i) == ("limits", 2):
                found[-1] = 32767
            if (what, i) in (("limits", 7), ("limits", 14)):
                found[-1] = -32768
    if what == "single":
        found[4] += 1
    return found


def vectors() -> dict[str, Any]:
    """The whole file."""
    coder = Coder(tables(), HEIGHT, WIDTH, implementation="python")
    codec, frames = FrameCodec(BUNDLE_ID, len(MODES), len(GROUP_ENDS), OPINIONS), []
    for name, mode, what in FRAMES:
        channels = coder.tables.mode_channels[mode]
        flat = symbols(mode, what)
        encoded = coder.encode(np.array(flat, np.int16).reshape(channels, HEIGHT, WIDTH), mode)
        whole = Frame(mode, len(GROUP_ENDS), encoded.payload)
        cut = Frame(mode, 1, encoded.payload[: encoded.group_ends[0]])
        told = replace(whole, opinion=OPINIONS - 1)
        frames.append(
            {
                "name": name,
                "mode": mode,
                "symbols": flat,
                "payload": encoded.payload.hex(),
                "group_ends": list(encoded.group_ends),
                "stream": codec.pack(whole).hex(),
                "stream_of_first_group": codec.pack(cut).hex(),
                "parts": [part.data.hex() for part in split(codec, whole, encoded.group_ends, least_bytes=0)],
                "self_contained": codec.pack_file(whole).hex(),
                "stream_with_opinion": codec.pack(told).hex(),
                "parts_with_opinion": [part.data.hex() for part in split(codec, told, encoded.group_ends, 0)],
            }
        )
    shape = {
        "bundle_id": BUNDLE_ID.hex(),
        "opinions": OPINIONS,
        "height": HEIGHT,
        "width": WIDTH,
        "group_ends": GROUP_ENDS,
    }
    modes = [{"lanes": n, "tables": [{"low": low, "frequencies": f} for low, f in mode]} for n, mode in MODES]
    return {"version": 1, **shape, "modes": modes, "frames": frames}


def text() -> str:
    """What the file holds."""
    return json.dumps(vectors(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
