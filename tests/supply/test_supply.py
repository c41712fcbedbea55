"""What is installed, and by which hash; what the lint refuses; how an audit that could not be made is told."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.supply import audit
from tests.supply.lock import locked

ROOT = Path(__file__).parents[2]
UNHASHED = {"torch"}
"""Which file it is depends on where it comes from; and so do the packages that its CUDA builds bring."""
TORCH_S_OWN = ("nvidia-", "cuda-", "triton", "torch")


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def test_every_package_of_the_lock_has_hashes_and_the_version_of_the_constraints() -> None:
    lock, pins = locked(), pinned()
    assert all(count > 0 for _, count in lock.values())
    assert {name: version for name, (version, _) in lock.items() if name in pins} == {
        name: version for name, version in pins.items() if name in lock
    }
    windows = {"colorama"}
    assert not lock.keys() - pins.keys() - windows


def test_the_lock_has_all_that_the_demo_asks_for_but_torch() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    asked = [
        *project["project"]["dependencies"],
        *extras["demo"],
        *extras["federated"],
        *project["build-system"]["requires"],
    ]
    names = {canonicalize_name(Requirement(text).name) for text in asked}
    assert names - locked().keys() == UNHASHED
    assert not [name for name in locked() if name.startswith(TORCH_S_OWN)]


@pytest.mark.parametrize(
    "line",
    [
        *("import pickle", "from pickle import loads", "import cloudpickle", "import dill", "from joblib import load"),
        *("import marshal", "import shelve", "import torch\n\ntorch.load('x')", "import numpy as np\n\nnp.load('x')"),
    ],
)
def test_the_lint_refuses_what_runs_bytes(line: str) -> None:
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent)) or "ruff"
    command = [ruff, "check", "--stdin-filename", "server/planted.py", "--output-format", "concise", "-"]
    done = subprocess.run(command, cwd=ROOT, input=line, capture_output=True, text=True, check=False)
    assert "TID251" in done.stdout


def report(*rows: dict[str, object]) -> str:
    return json.dumps({"dependencies": list(rows)})


def test_an_audit_says_what_it_could_not_look_up() -> None:
    fine = {"name": "numpy", "version": "2", "vulns": []}
    skipped = {"name": "torch", "skip_reason": "not found"}
    bad = {"name": "jinja2", "version": "2.10", "vulns": [{"id": "CVE-2019-10906"}]}
    found = audit.read(report(fine, skipped, bad))
    assert found == (3, ["torch"], ["jinja2 2.10: CVE-2019-10906"])
    said = audit.words(found, trusted=True)
    assert said.splitlines() == [
        "2 of 3 packages looked up, 1 vulnerable",
        "NOT AUDITED: torch",
        "jinja2 2.10: CVE-2019-10906",
    ]
    assert audit.words(found, trusted=False).startswith("NOTHING WAS AUDITED")


FAKE = """#!/bin/sh
while [ "$1" != "--output" ]; do [ "$1" = "--requirement" ] && asked=$2; shift; done
case $(cat "$asked") in jinja2*) cat "$0.known" ;; *) cat "$0.all" ;; esac > "$2"
"""


@pytest.mark.parametrize(
    ("known", "everything", "status"),
    [
        ("vulnerable", "fine", 0),
        ("vulnerable", "vulnerable", 1),
        ("vulnerable", "skipped", 2),
        ("skipped", "skipped", 2),
    ],
)
def test_the_status_of_an_audit(tmp_path: Path, known: str, everything: str, status: int) -> None:
    """What it is by whether a vulnerability that is there was found, and by what was found of ours."""
    rows: dict[str, dict[str, object]] = {
        "fine": {"name": "a", "version": "1", "vulns": []},
        "skipped": {"name": "a", "skip_reason": "not found"},
        "vulnerable": {"name": "a", "version": "1", "vulns": [{"id": "CVE-1"}]},
    }
    fake = tmp_path / "pip-audit"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    Path(f"{fake}.known").write_text(report(rows[known]))
    Path(f"{fake}.all").write_text(report(rows[everything]))
    (tmp_path / "pins.txt").write_text("a==1\n")
    assert audit.main(str(fake), tmp_path / "pins.txt", tmp_path / "out" / "audit.json") == status
