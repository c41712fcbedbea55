"""Golden bytes: a change here is a change of the format, see tests/golden/make_coder.py."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headwater.compression.coder import Coder, Implementation
from headwater.compression.frame import VERSION, Frame, FrameCodec
from headwater.compression.parts import Joiner, split
from tests.golden import make_coder

GOLDEN = json.loads(make_coder.FILE.read_text(encoding="utf-8"))
CODEC = FrameCodec(
    bytes.fromhex(GOLDEN["bundle_id"]), len(GOLDEN["modes"]), len(GOLDEN["group_ends"]), GOLDEN["opinions"]
)


@pytest.mark.parametrize("implementation", ["c", "python"])
@pytest.mark.parametrize("frame", GOLDEN["frames"], ids=lambda frame: frame["name"])
def test_frames_are_made_and_read_byte_for_byte(frame: dict[str, Any], implementation: Implementation) -> None:
    coder = Coder(make_coder.tables(), GOLDEN["height"], GOLDEN["width"], implementation=implementation)
    symbols = np.array(frame["symbols"], np.int16).reshape(-1, GOLDEN["height"], GOLDEN["width"])
    encoded = coder.encode(symbols, frame["mode"])
    assert encoded.payload.hex() == frame["payload"]
    assert list(encoded.group_ends) == frame["group_ends"]
    whole = Frame(frame["mode"], 2, encoded.payload)
    cut = Frame(frame["mode"], 1, encoded.payload[: encoded.group_ends[0]])
    assert CODEC.pack(replace(whole, opinion=199)).hex() == frame["stream_with_opinion"]
    assert CODEC.unpack(bytes.fromhex(frame["stream_with_opinion"])) == replace(whole, opinion=199)
    assert CODEC.pack(whole).hex() == frame["stream"]
    assert CODEC.pack_file(whole).hex() == frame["self_contained"]
    assert CODEC.pack(cut).hex() == frame["stream_of_first_group"]
    for unpacked in (
        CODEC.unpack(bytes.fromhex(frame["stream"])),
        CODEC.unpack_file(bytes.fromhex(frame["self_contained"])),
    ):
        assert np.array_equal(coder.decode(unpacked.payload, unpacked.mode, unpacked.groups), symbols)
    first = CODEC.unpack(bytes.fromhex(frame["stream_of_first_group"]))
    assert np.array_equal(coder.decode(first.payload, first.mode, first.groups), symbols[:1])


@pytest.mark.parametrize("frame", GOLDEN["frames"], ids=lambda frame: frame["name"])
def test_parts_are_made_and_read_byte_for_byte(frame: dict[str, Any]) -> None:
    assert frame["parts"][0] == frame["stream_of_first_group"]
    for form, made in (("stream", "parts"), ("stream_with_opinion", "parts_with_opinion")):
        whole, parts = CODEC.unpack(bytes.fromhex(frame[form])), [bytes.fromhex(part) for part in frame[made]]
        assert [part.data for part in split(CODEC, whole, frame["group_ends"], least_bytes=0)] == parts
        joiner = Joiner(CODEC, groups=2, max_bytes=1000)
        for part in parts:
            joiner.add(part)
        assert joiner.frame == whole


def test_the_file_is_what_its_script_makes() -> None:
    assert GOLDEN["version"] == VERSION
    assert make_coder.FILE.read_text(encoding="utf-8") == make_coder.text()


def test_a_decoder_made_from_the_document_alone_reads_every_frame(tmp_path: Path) -> None:
    """docs/wire-format.md ends with a decoder that imports nothing of headwater; it is run as it stands."""
    document = Path(__file__).parents[2] / "docs" / "wire-format.md"
    script = tmp_path / "decoder.py"
    _, code = document.read_text(encoding="utf-8").split("```python\n")
    script.write_text(code.removesuffix("```\n"), encoding="utf-8")
    done = subprocess.run([sys.executable, script, make_coder.FILE], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"{len(GOLDEN['frames'])} frames read\n", "")
