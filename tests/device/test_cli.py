"""The command's flags, its help and ``profile``; what it does with a server is in tests/integration."""

import json
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from headwater.compression.bundle import Bundle
from headwater.compression.errors import BundleError, LinkError, SettingsError, SourceError
from headwater.device.cli import app
from headwater.device.settings import DeviceSettings
from tests import tiny

RUNNER = CliRunner()


def test_every_setting_has_a_flag() -> None:
    command = typer.main.get_command(app)
    flags = {parameter.name for parameter in command.params}
    assert {field.name for field in fields(DeviceSettings)} <= flags


def test_help_names_flags_and_commands() -> None:
    out = RUNNER.invoke(app, ["--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    assert "--deadline-ms" in out
    assert "profile" in out


def test_profile(tiny_bundle: Bundle, tmp_path: Path) -> None:
    bundle = tiny_bundle.save(tmp_path / "tiny.zip")
    words = ["profile", "--bundle", str(bundle), "--rounds", "3"]
    plain = json.loads(RUNNER.invoke(app, [*words, "--json"], catch_exceptions=False).output)
    assert [row["width"] for row in plain["widths"]] == [0.25, 0.5, 0.75, 1.0]
    out = RUNNER.invoke(app, words, catch_exceptions=False, env={"COLUMNS": "120"}).output
    assert "tiny, 1 thread; the whole model takes" in out


def test_profile_for_a_simulated_fleet(tiny_bundle: Bundle, tmp_path: Path) -> None:
    bundle, out = tiny_bundle.save(tmp_path / "tiny.zip"), tmp_path / "here.toml"
    words = ["profile", "--bundle", str(bundle), "--seconds", "0.1", "--out", str(out), "--like", "pi-5"]
    said = RUNNER.invoke(app, [*words, "--idle-w", "2.5"], catch_exceptions=False).output
    assert said.endswith("figures measured; what is missing is that of pi-5\n")
    plain = tomllib.loads(out.read_text())
    assert (plain["name"], plain["like"], plain["idle_w"]["mid"]) == ("here", "pi-5", 2.5)


def test_once_is_answered_here_or_says_why_it_cannot(tiny_bundle: Bundle, tmp_path: Path) -> None:
    bundle = tiny_bundle.save(tmp_path / "tiny.zip")
    Image.fromarray(tiny.image(1)[0]).save(tmp_path / "x.png")
    words = ["--bundle", str(bundle), "--once", str(tmp_path / "x.png"), "--max-drop", "50", "--server", "127.0.0.1:1"]
    out = RUNNER.invoke(app, [*words, "--tasks", "shape"], catch_exceptions=False).output
    assert out.startswith("shape: middle ")
    assert "answered on the device, nothing sent, head " in out
    plain = json.loads(RUNNER.invoke(app, [*words, "--tasks", "shape", "--json"], catch_exceptions=False).output)
    assert (plain["source"], plain["bytes"], plain["results"]["shape"]["label"]) == ("local", 0, "middle")
    with pytest.raises(SettingsError, match="so that every frame has to be sent"):
        RUNNER.invoke(app, words, catch_exceptions=False)


def test_once_with_a_deadline_is_answered_here_where_no_server_does(tiny_bundle: Bundle, tmp_path: Path) -> None:
    bundle = tiny_bundle.save(tmp_path / "tiny.zip")
    Image.fromarray(tiny.image(1)[0]).save(tmp_path / "x.png")
    words = ["--bundle", str(bundle), "--once", str(tmp_path / "x.png"), "--server", "127.0.0.1:1", "--tasks", "shape"]
    with pytest.raises(LinkError):
        RUNNER.invoke(app, words, catch_exceptions=False)
    out = RUNNER.invoke(app, [*words, "--deadline-ms", "60000"], catch_exceptions=False).output
    assert out.startswith("shape: middle ")
    assert "answered on the device (no server answers at 127.0.0.1:1" in out
    plain = json.loads(RUNNER.invoke(app, [*words, "--deadline-ms", "60000", "--json"], catch_exceptions=False).output)
    assert (plain["source"], plain["results"]["shape"]["label"]) == ("local", "middle")
    assert plain["detail"].startswith("no server answers at")
    with pytest.raises(SettingsError, match="--once asks the server"):
        RUNNER.invoke(app, [*words, "--whole-model"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("words", "error", "text"),
    [
        (["--source", "digits"], SettingsError, "no bundle is set; give --bundle PATH"),
        (["--bundle", "nowhere"], BundleError, "there is no bundle at nowhere"),
        (["--bundle", "nowhere", "--source", "nothing/there"], SourceError, "there is no source 'nothing/there'"),
        (["--bundle", "nowhere", "--once", "x.png"], BundleError, "there is no bundle at nowhere"),
        (["--server", "edge"], SettingsError, "must be host:port"),
        (["--window", "0"], SettingsError, "window is 0"),
        (["--max-drop", "-1"], SettingsError, "max_drop is -1"),
        (["--prefer", "defect"], SettingsError, "such as defect=2,cell_type=1"),
        (["--width", "1", "--max-bytes-per-s", "100"], SettingsError, "width or gain fix one"),
    ],
)
def test_mistakes(words: list[str], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        RUNNER.invoke(app, words, catch_exceptions=False)
