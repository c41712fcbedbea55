"""Every target on its seeds, on what fuzzing found before, and on what hypothesis makes of both."""

from __future__ import annotations

import json
import struct
import tomllib
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.compression.errors import SettingsError
from headwater.simulations.fleet.calibration import Calibration
from headwater.simulations.fleet.reading import read
from headwater.simulations.fleet.scenario import Scenario
from tests.fuzz import files
from tests.fuzz.mutations import mutated, odd_tree
from tests.fuzz.targets import CORPUS, MODULES, load

EACH = pytest.mark.parametrize("name", MODULES)
SOME = settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@EACH
def test_every_seed_is_taken(name: str) -> None:
    target = load(name)
    assert [target.run(seed) for seed in target.seeds] == [True] * len(target.seeds)


@EACH
def test_what_was_found_before(name: str) -> None:
    target = load(name)
    for data in (b"", b"\x00", *target.kept):
        assert target.run(data) in {True, False}


def test_the_corpus_is_of_targets_and_small() -> None:
    kept = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in kept} <= set(MODULES)
    assert sum(path.stat().st_size for path in kept) < 200_000


@EACH
@SOME
@given(st.data())
def test_changed_bytes(name: str, data: st.DataObject) -> None:
    target = load(name)
    target.run(data.draw(mutated([*target.seeds, *target.kept])))


MANIFEST = json.loads(files.manifest_seeds()[0])
SCENARIO = {**tomllib.loads(files.scenario_seeds()[1].decode()), "links": [{"name": "mine", "like": "lte"}]}
CALIBRATION = tomllib.loads(files.calibration_seeds()[0].decode())
HEADER = {"__metadata__": {"a": "b"}, "x": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}


@SOME
@given(odd_tree(MANIFEST))
def test_odd_manifests(tree: dict[str, Any]) -> None:
    files.manifest(json.dumps(tree).encode(errors="surrogatepass"))


@SOME
@given(odd_tree(HEADER), st.integers(-2, 40))
def test_odd_headers_of_safetensors(tree: dict[str, Any], more: int) -> None:
    header = json.dumps(tree).encode()
    files.arrays(struct.pack("<Q", len(header)) + header + bytes(max(24 + more, 0)))


@SOME
@given(odd_tree(SCENARIO))
def test_odd_scenarios(tree: dict[str, Any]) -> None:
    with suppress(SettingsError):
        made = Scenario.of(tree)
        assert Scenario.of(made.plain()) == made


@SOME
@given(odd_tree(CALIBRATION))
def test_odd_calibrations(tree: dict[str, Any]) -> None:
    with suppress(SettingsError):
        made = read(Calibration, tree, "it")
        assert made.batch_times(3) > 0
