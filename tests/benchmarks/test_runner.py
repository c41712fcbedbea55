"""The run of all benchmarks: every one runs, their claims come together, and a crash is neither hidden nor catching."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from benchmarks import __main__ as runner

GOOD = """
import sys
from benchmarks import claims

def main(arguments=None):
    options = claims.options("Good.", arguments)
    value = 1.0 if options.quick else 2.0
    return claims.report("Good", [claims.at_least("good", "speed", value, unit="x", target=1.5, peer="none")], options)

if __name__ == "__main__":
    sys.exit(main())
"""
CORES = os.sched_getaffinity(0)
BAD = """
def main():
    raise AssertionError("a wrong answer")

main()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of two benchmarks, one of which finds a wrong answer, and a module that is none."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    for name in ("__init__", "claims"):
        shutil.copy(runner.HERE / f"{name}.py", folder)
    for name, text in (("good", GOOD), ("bad", BAD), ("shared", "VALUE = 1\n")):
        (folder / f"{name}.py").write_text(text)
    monkeypatch.setattr(runner, "HERE", folder)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return folder


@pytest.mark.usefixtures("folder")
def test_all_run_and_a_failure_is_counted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out" / "bench.json"
    path.parent.mkdir()
    path.write_text("stale")
    assert runner.names() == ["bad", "good"]
    assert runner.main(["--json", str(path)]) == 1
    (claim,) = json.loads(path.read_text())
    assert (claim["benchmark"], claim["value"], claim["holds"]) == ("good", 2.0, True)
    output = capfd.readouterr()
    assert "FAILED: python -m benchmarks.bad" in output.out
    took = output.out[output.out.index("How long they took") :]
    assert re.search(r"bad +│ +\d+ │ alone, FAILED", took)
    assert re.search(r"good +│ +\d+ │ alone", took)
    assert re.search(r"all +│ +\d+ │ 0 min \d\d s", took)
    assert "a wrong answer" in output.err


@pytest.mark.usefixtures("folder")
def test_a_figure_that_misses_its_target_is_no_failure(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    assert runner.main(["good", "--quick", "--json", str(path)]) == 0
    assert [claim["holds"] for claim in json.loads(path.read_text())] == [False]


def test_one_whose_rows_are_no_claims_fails(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = GOOD.replace('"good"', '"bad"').replace(
        "return claims.report", "claims.asdict = lambda _: {}\n    return claims.report"
    )
    (folder / "bad.py").write_text(text)
    path = tmp_path / "bench.json"
    assert runner.main(["--json", str(path)]) == 1
    assert [claim["benchmark"] for claim in json.loads(path.read_text())] == ["good"]
    assert "want benchmark, claim, value" in capfd.readouterr().out


def test_one_that_hangs_is_stopped(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "bad.py").write_text("import threading\ndef main(): ...\nthreading.Event().wait()\n")
    monkeypatch.setattr(runner, "LIMIT_S", 0.5)
    assert runner.main(["bad"]) == 1
    assert "bad was stopped after 0.5 s" in capfd.readouterr().out


@pytest.mark.usefixtures("folder")
def test_an_unknown_name_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        runner.main(["goood"])
    assert "there is no benchmark goood; there are bad, good" in capsys.readouterr().err


def test_those_without_times_run_side_by_side_each_on_a_core_of_its_own(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # Each waits for the other's file, so that one after the other they would never end.
    meeting = """
import os, sys, threading
from pathlib import Path
me, other = Path(__file__).stem, {"left": "right", "right": "left"}[Path(__file__).stem]
(Path(__file__).parent / me).touch()
while len(os.sched_getaffinity(0)) == 1 and CORES > 1 and not (Path(__file__).parent / other).exists():
    threading.Event().wait(0.01)
print(f"{me} runs on {len(os.sched_getaffinity(0))} core")
"""
    cores = len(os.sched_getaffinity(0))
    for name in ("left", "right"):
        text = f"TIMED = False\nCORES = {cores}\n" + meeting + GOOD.replace('"good"', f'"{name}"')
        (folder / f"{name}.py").write_text('"""Untimed."""\n' + text)
    assert [runner.timed(name) for name in ("good", "left", "right")] == [True, False, False]
    path = tmp_path / "bench.json"
    assert runner.main(["good", "right", "left", "--json", str(path)]) == 0
    assert [claim["benchmark"] for claim in json.loads(path.read_text())] == ["good", "right", "left"]
    printed = capfd.readouterr().out
    assert printed.count("runs on 1 core") == 2
    assert printed.index("== left:") < printed.index("== good\n")


@pytest.mark.usefixtures("folder")
def test_one_alone_needs_no_summary(capfd: pytest.CaptureFixture[str]) -> None:
    assert runner.main(["good"]) == 0
    assert "How long they took" not in capfd.readouterr().out


def test_those_that_last_longest_begin_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {min(CORES)})  # one at a time
    for name, seconds in (("brief", 1), ("long", 30), ("longer", 200)):
        text = GOOD.replace('"good"', f'"{name}"')
        (folder / f"{name}.py").write_text(f'"""Untimed."""\nTIMED = False\nSECONDS = {seconds}\n{text}')
    assert [runner.lasts(name) for name in ("good", "brief", "longer")] == [0, 1, 200]
    assert runner.main(["brief", "good", "long", "longer"]) == 0
    begun = re.findall(r"^== (\w+)$", capfd.readouterr().out, re.MULTILINE)
    assert begun == ["longer", "long", "brief", "good"]


@pytest.mark.parametrize("name", ["federated", "kills", "memory", "rate_accuracy"])
def test_the_long_untimed_benchmarks_of_the_project_say_how_long_they_last(name: str) -> None:
    assert not runner.timed(name)
    assert runner.lasts(name) > 30


def test_every_benchmark_of_the_project_is_found() -> None:
    assert {"__main__", "__init__", "claims"}.isdisjoint(runner.names())
    assert set(runner.names()) <= {path.stem for path in runner.HERE.glob("*.py")}
