"""The command: what it looks at, what it prints, and its exit status."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headwater.compression.doctor import machine
from headwater.compression.doctor.cli import app
from headwater.compression.doctor.finding import Findings
from headwater.compression.errors import SettingsError
from tests import tiny

RUNNER = CliRunner()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration but the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


def checks(*words: object) -> tuple[int, dict[str, str]]:
    result = RUNNER.invoke(app, [*map(str, words), "--json"], catch_exceptions=False)
    said = json.loads(result.output)
    assert all(bool(each["remedy"]) == (each["state"] != "well") for each in said["findings"])
    worst = {"well": 0, "doubtful": 1, "wrong": 2}
    found: dict[str, str] = {}
    for each in said["findings"]:
        found[each["check"]] = max(found.get(each["check"], "well"), each["state"], key=worst.__getitem__)
    return result.exit_code, found


def test_a_machine_that_is_nothing_yet() -> None:
    status, found = checks()
    assert (status, set(found)) == (0, {"clock", "versions", "throttling"})


def test_what_is_configured_is_looked_at(tmp_path: Path) -> None:
    tiny.bundle().save(tmp_path / "tiny.zip")
    (tmp_path / "headwater.toml").write_text('[device]\nbundle = "tiny.zip"\nserver = "127.0.0.1:1"\nsource = "-"\n')
    status, found = checks("--config", tmp_path / "headwater.toml")
    assert status == 1
    assert (found["link"], found["bundle"], found["camera"]) == ("wrong", "well", "well")
    assert "space" not in found, "there is no folder to look at"


def test_what_is_named_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    # Not the usual port: any program may have that as its own end of a connection.
    (tmp_path / "headwater.toml").write_text('[server]\nlisten = "127.0.0.1:1"\n')
    status, found = checks("server", "--state", tmp_path / "state")
    assert (status, found["link"], found["space"]) == (0, "doubtful", "well")


def test_for_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def clock(findings: Findings) -> None:
        findings.wrong("clock", "it stands", "wind it up")

    monkeypatch.setattr(machine, "clock", clock)
    result = RUNNER.invoke(app, ["server", "--state", str(tmp_path / "none")], catch_exceptions=False)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[0].split() == ["wrong", "clock", "it", "stands"]
    assert lines[1].strip() == "-> wind it up"
    assert lines[-1].endswith("to be looked after")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("fridge",), "there is no fridge to look at; there are device and server"),
        (("--state", "x"), "whose --state is that"),
        (("server", "--source", "camera"), "a server has no --source; leave that out"),
    ],
)
def test_what_cannot_be_looked_at(words: tuple[str, ...], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        RUNNER.invoke(app, words, catch_exceptions=False)
