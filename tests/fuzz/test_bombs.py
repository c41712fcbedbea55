"""Decode bombs: small inputs that speak of gigabytes are refused before room for these is made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

MOST_BYTES = 16 << 20
TAKEN = {"a trace of one packet in a week"}


def test_bombs_take_no_room(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz.bombs", str(tmp_path)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    used = json.loads(done.stdout)
    assert len(used) == 17
    assert {name for name, (verdict, _, _) in used.items() if verdict == "taken"} == TAKEN
    most = {name: max(allocated, grown) for name, (_, allocated, grown) in used.items()}
    assert all(size < MOST_BYTES for size in most.values()), most
