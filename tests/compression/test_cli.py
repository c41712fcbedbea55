"""The command line: what each command prints, and how every kind of mistake ends."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest
import typer
from typer.testing import CliRunner

from headwater.compression import cli, settings
from headwater.compression.bundle import Bundle
from headwater.compression.errors import BundleError, HeadwaterError, SettingsError, SignatureError
from headwater.compression.manifest import Cut
from tests import tiny

WIDE = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}


def run(*arguments: str | Path, env: dict[str, str] | None = None) -> str:
    """Run a command in this process and return what it printed; a raised error is raised here."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments], env={**WIDE, **(env or {})})
    if result.exception is not None:
        raise result.exception
    return result.output


def process(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the installed script as a user does."""
    command = [str(Path(sys.executable).with_name("headwater")), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **WIDE, **environment}, timeout=60
    )


@pytest.fixture
def saved(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    return tiny_bundle.save(tmp_path / "tiny")


def test_version() -> None:
    assert re.fullmatch(r"headwater \d+\.\d+\.\d+\n", run("--version"))


def test_help_lists_every_command() -> None:
    output = run("--help")
    for name in ("bundle", "config", "demo", "device", "server", "train"):
        assert re.search(rf"\W {name} +\w", output), name


@pytest.mark.parametrize("name", ["bundle", "config", "demo", "device", "server", "train"])
def test_every_command_s_help_reads(name: str) -> None:
    output = run(name, "--help")
    assert f"headwater {name}" in process(name, "--help").stdout
    assert "--install-completion" not in output


def test_every_argument_and_flag_of_every_command_says_what_it_is() -> None:
    def silent(command: click.Command | None, path: str) -> list[str]:
        assert command is not None, path
        found = [f"{path} {param.name}" for param in command.params if not param.help]
        context = click.Context(command)
        for name in command.list_commands(context) if isinstance(command, click.Group) else ():
            found += silent(command.get_command(context, name), f"{path} {name}")
        return found

    assert silent(typer.main.get_command(cli.app), "headwater") == []


def test_paragraphs_of_help_have_no_line_breaks_of_their_source() -> None:
    lines = [line.strip() for line in run("server", "publish", "--help").splitlines()]
    assert any(line.startswith("It is refused if") and "with the same --state does the rest" in line for line in lines)


def test_an_unknown_command_ends_as_usage_error() -> None:
    result = process("sever")
    assert result.returncode == 2
    assert "server" in result.stderr


def test_config_prints_values_and_origins(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[device]\n")
    output = run("config", "--config", path)
    assert f"Configuration file: {path}" in output
    for name, section in settings.registered_sections().items():
        assert f"[{name}]" in output
        for key in settings.resolve(section, environment={}, file=path).origin:
            assert key in output


def test_config_as_json_names_the_layer(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[server]\n")
    printed = json.loads(run("config", "--json", "--config", path))
    assert sorted(printed) == sorted(settings.registered_sections())
    assert {entry["layer"] for section in printed.values() for entry in section.values()} == {"default"}


def test_bundle_show_prints_the_modes(saved: Path, tiny_bundle: Bundle) -> None:
    output = run("bundle", "show", saved)
    assert tiny_bundle.id.hex() in output
    for mode in tiny_bundle.manifest.modes:
        assert re.search(
            rf" {mode.index} +{mode.width:g} +{mode.gain} +{mode.channels} +{mode.mean_bytes:.1f} ", output
        )
    for task in tiny_bundle.manifest.tasks:
        assert ", ".join(task.labels) in output


def test_bundle_show_tells_of_the_local_exit(saved: Path, tmp_path: Path, tiny_bundle: Bundle) -> None:
    lines = run("bundle", "show", saved)
    assert re.search(r"local exit +shape, 0\.00 MMACs; within 1 point it answers 11% to 22% of\s", lines)
    files = {name: tiny_bundle.read(name) for name in tiny_bundle.manifest.files}
    bare = Bundle.build(dataclasses.replace(tiny_bundle.manifest, exit=None), files)
    assert re.search(r"local exit +none\s", run("bundle", "show", bare.save(tmp_path / "bare")))


def test_bundle_show_tells_of_pictures_and_of_the_bundles_it_answers_for(tmp_path: Path, tiny_bundle: Bundle) -> None:
    later = tiny.later()
    modes = [dataclasses.replace(mode, psnr_db={"reconstruct": 20.0 + mode.index}) for mode in later.manifest.modes]
    files = {name: later.read(name) for name in later.manifest.files}
    measured = Bundle.build(dataclasses.replace(later.manifest, modes=tuple(modes)), files)
    output = run("bundle", "show", measured.save(tmp_path / "later"))
    assert re.search(rf"answers for +{tiny_bundle.id.hex()[:10]}\s", output)
    assert re.search(r"reconstruct: an image\s", output)
    for mode in modes:
        right = rf"{100 * mode.accuracy['shape']:.1f} +{100 * mode.accuracy['bright']:.1f}"
        assert re.search(rf" {mode.index} +{mode.width:g} .* {right} +- +{20 + mode.index}\.0 ", output)
    assert output.count("balanced %") == 3, "a picture has no classes"


def test_bundle_show_prints_what_is_left_of_cut_frames(tiny_bundle: Bundle, tmp_path: Path) -> None:
    manifest = tiny_bundle.manifest
    modes = [
        dataclasses.replace(
            mode, cuts=(Cut(1, 10 + mode.index, {"shape": 0.5, "bright": 0.625}), Cut(2, 30, {"shape": 0.75}))
        )
        for mode in manifest.modes
    ]
    files = {name: tiny_bundle.read(name) for name in manifest.files}
    saved = Bundle.build(dataclasses.replace(manifest, modes=tuple(modes)), files).save(tmp_path / "cut")
    assert "Cut frames" not in run("bundle", "show", saved)
    output = run("bundle", "show", "--cuts", saved)
    for mode in modes:
        one = rf" {mode.index} +{mode.width:g} +{mode.gain} +1 +{10 + mode.index}\.0 +50\.0 +62\.5 *\n"
        two, whole = r" +2 +30\.0 +75\.0 +- *\n", rf" +all +{mode.mean_bytes:.1f} +{100 * mode.accuracy['shape']:.1f} "
        assert re.search(one + two + whole, output)


def test_a_bundle_without_measured_cuts_says_so(saved: Path) -> None:
    assert "Cut frames: this bundle does not say what they yield" in run("bundle", "show", "--cuts", saved)


def test_bundle_show_as_json_is_the_manifest(saved: Path, tiny_bundle: Bundle) -> None:
    printed = json.loads(run("bundle", "show", "--json", saved))
    assert printed.pop("id") == tiny_bundle.id.hex()
    assert printed == json.loads(tiny_bundle.manifest_bytes)


def test_bundle_verify_says_what_was_checked(saved: Path, tiny_bundle: Bundle) -> None:
    output = run("bundle", "verify", saved)
    assert tiny_bundle.short_id in output
    assert "all whole; not signed" in output


@pytest.mark.parametrize("name", ["tiny", "tiny.zip"])
def test_a_signed_bundle_verifies(name: str, tiny_bundle: Bundle, tmp_path: Path) -> None:
    path = tiny_bundle.save(tmp_path / name)
    assert "fleet.pub" in run("bundle", "keygen", tmp_path / "fleet")
    with pytest.raises(SignatureError, match="not signed"):
        run("bundle", "verify", path, "--key", tmp_path / "fleet.pub")
    assert "signed by key" in run("bundle", "sign", path, "--key", tmp_path / "fleet")
    assert "all whole; signed by" in run("bundle", "verify", path, "--key", tmp_path / "fleet.pub")
    assert Bundle.load(path).id == tiny_bundle.id
    run("bundle", "keygen", tmp_path / "other")
    with pytest.raises(SignatureError, match="not by the trusted key"):
        run("bundle", "verify", path, "--key", tmp_path / "other.pub")


def test_a_damaged_bundle_does_not_verify(saved: Path) -> None:
    path = saved / "decoder.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"decoder.onnx is damaged"):
        run("bundle", "verify", saved)


def test_an_error_is_one_paragraph_on_stderr(tmp_path: Path) -> None:
    result = process("bundle", "show", tmp_path / "none")
    assert result.returncode == 1
    assert result.stdout == ""
    assert re.fullmatch(r"error: there is no bundle at .*\n", result.stderr)


def test_a_wrong_setting_is_a_usage_error() -> None:
    result = process("config", HEADWATER_DEVCIE_SERVER="edge:1")
    assert result.returncode == 2
    assert re.fullmatch(r"error: .*HEADWATER_DEVCIE_SERVER; did you mean HEADWATER_DEVICE_\w+\?\n", result.stderr)


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    result = process("bundle", "show", tmp_path / "none", HEADWATER_DEBUG="1")
    assert result.returncode == 1
    assert "Traceback" in result.stderr


@pytest.mark.parametrize(
    ("error", "status"), [(SettingsError("a\n  b"), 2), (BundleError("a b"), 1), (HeadwaterError("a b"), 1)]
)
def test_main_turns_every_error_into_a_status(
    error: HeadwaterError, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.delenv("HEADWATER_DEBUG", raising=False)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == status
    assert capsys.readouterr().err == "error: a b\n"


def test_a_file_that_cannot_be_written_is_told_by_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "app", lambda **_: tmp_path.write_text("a folder is no file"))
    monkeypatch.delenv("HEADWATER_DEBUG", raising=False)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    assert capsys.readouterr().err == f"error: {tmp_path}: Is a directory\n"


def test_an_operating_system_s_error_about_no_file_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(OSError, match="Input/output error"):
        cli.main()


def missing(name: str) -> None:
    raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_a_command_that_lacks_its_extra_says_which(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "app", lambda **_: missing("torch.nn"))
    monkeypatch.delenv("HEADWATER_DEBUG", raising=False)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    assert "pip install 'headwater[train]'" in capsys.readouterr().err


def test_a_module_that_no_extra_has_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "app", lambda **_: missing("headwater.nothing"))
    with pytest.raises(ModuleNotFoundError):
        cli.main()


def test_a_command_that_cannot_be_imported_is_listed_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    points = {"broken": EntryPoint("broken", "headwater.nothing:app", cli.ENTRY_POINTS)}
    monkeypatch.setattr(cli, "_entry_points", lambda: points)
    assert re.search(r"broken +Not available: No module named 'headwater.nothing'", run("--help"))
    with pytest.raises(ModuleNotFoundError):
        run("broken", "--any", "flag")
