"""Golden bytes: a change here is a change of the format, see tests/golden/make_updates.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headwater.compression.coder import Implementation
from headwater.compression.updates import Scheme, decode, encode
from headwater.compression.updates.codec import VERSION
from headwater.compression.updates.integers import decode_integers, encode_integers
from tests.golden import make_updates

GOLDEN = json.loads(make_updates.FILE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("implementation", ["c", "python"])
@pytest.mark.parametrize("golden", GOLDEN["integers"], ids=lambda golden: golden["name"])
def test_integers(golden: dict[str, Any], implementation: Implementation) -> None:
    sides, values = np.array(golden["sides"], np.uint32), np.array(golden["values"], np.int8)
    data = bytes.fromhex(golden["data"])
    assert encode_integers(values, None, sides, implementation=implementation) == data
    assert np.array_equal(decode_integers(data, None, sides, implementation=implementation), values)


@pytest.mark.parametrize("golden", GOLDEN["updates"], ids=lambda golden: f"{golden['scheme']} {golden['masked']}")
def test_updates(golden: dict[str, Any]) -> None:
    data, scheme = bytes.fromhex(golden["data"]), Scheme.from_json(golden["scheme"])
    mask = make_updates.mask() if golden["masked"] else None
    update = decode(data, make_updates.LAYOUT, mask=mask)
    assert (update.base, update.scheme) == (make_updates.BASE, scheme)
    assert {name: array.tobytes().hex() for name, array in update.arrays.items()} == golden["decoded"]
    made = encode(make_updates.delta(), make_updates.LAYOUT, scheme, base=make_updates.BASE, mask=mask)
    assert made.data == data
    assert {name: array.tobytes().hex() for name, array in made.decoded.items()} == golden["decoded"]


def test_the_file_is_what_its_script_makes() -> None:
    assert GOLDEN["version"] == VERSION
    assert make_updates.FILE.read_text(encoding="utf-8") == make_updates.text()


def test_a_decoder_made_from_the_document_alone_reads_all_integers(tmp_path: Path) -> None:
    """docs/updates.md ends with a decoder that imports nothing of headwater; it is run as it stands."""
    document = Path(__file__).parents[3] / "docs" / "updates.md"
    script = tmp_path / "decoder.py"
    _, code = document.read_text(encoding="utf-8").split("```python\n")
    script.write_text(code.removesuffix("```\n"), encoding="utf-8")
    done = subprocess.run([sys.executable, script, make_updates.FILE], capture_output=True, text=True, check=False)
    count = len(GOLDEN["integers"]) + sum(
        json.loads(each["scheme"])["values"][:5] != "float" for each in GOLDEN["updates"]
    )
    assert (done.stdout, done.stderr) == (f"{count} read\n", "")
