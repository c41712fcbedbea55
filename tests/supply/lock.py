"""What requirements-demo.txt pins."""

from __future__ import annotations

import re
from pathlib import Path

from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def locked() -> dict[str, tuple[str, int]]:
    """Of each package in the lock its version and how many hashes it has."""
    entries = re.split(r"\n(?=[a-zA-Z])", (ROOT / "requirements-demo.txt").read_text(encoding="utf-8"))
    found = {}
    for entry in entries[1:]:
        name, version = re.match(r"([\w.-]+)==([^\s;]+)", entry).groups()  # type: ignore[union-attr]
        found[canonicalize_name(name)] = (version, len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", entry)))
    return found
