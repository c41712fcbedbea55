"""What is fuzzed, by name: each target a function of codecs.py, files.py or messages.py, with inputs to begin from.

A target takes any bytes, says whether they were taken for what they should be, and raises nothing: an error that is not
the documented one, or an answer that does not hold, is a finding. What findings and their like looked like is kept in
corpus/NAME and tried again by test_targets.py, as are the seeds.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

CORPUS = Path(__file__).parent / "corpus"
NAMES = {
    "codecs": ("frame", "parts", "coder", "update", "integers"),
    "files": ("manifest", "arrays", "archive", "packed", "release", "config", "trace", "scenario", "calibration"),
    "messages": ("message",),
}
MODULES = {name: module for module, names in NAMES.items() for name in names}


class Target(NamedTuple):
    """One of them."""

    name: str
    run: Callable[[bytes], bool]
    seeds: list[bytes]
    """Each is taken."""
    kept: list[bytes]
    """Of the corpus, whatever becomes of them."""


@cache
def load(name: str) -> Target:
    """Import a target, of those here by its name, of other modules by MODULE.NAME."""
    inside, _, name = name.rpartition(".")
    module = importlib.import_module(f"tests.fuzz.{inside or MODULES[name]}")
    kept = [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]
    return Target(name, getattr(module, name), getattr(module, f"{name}_seeds")(), kept)
