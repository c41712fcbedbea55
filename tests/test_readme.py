"""The README and docs: their Python runs, their commands and flags exist, their links lead somewhere."""

import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.main import get_command

from headwater.compression import cli, settings
from headwater.compression.bundle import Bundle
from headwater.device.control.controller import Situation
from headwater.device.record import RecordFile
from tests.device.test_record import RECORD

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SCENARIOS = {"simulation.md"}
"""Pages whose TOML is that of scenarios; tests/simulations/fleet/test_docs.py reads it."""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands() -> list[tuple[str, str]]:
    """Every line of a code block that runs headwater, with the page that it stands on."""
    found = []
    for page in PAGES:
        lines = re.findall(r"^(?:    |\$ ).*?\bheadwater ([a-z].*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        found += [(page.name, line) for line in lines]
    return found


def test_the_python_of_the_readme_runs(tiny_bundle: Bundle, tmp_path: Path) -> None:
    tiny_bundle.save(tmp_path / "mine.zip")
    Image.effect_noise((40, 30), 50).save(tmp_path / "cell.png")
    examples = blocks(ROOT / "README.md", "python")
    assert len(examples) == 2
    outputs = []
    for example in examples:
        command = [sys.executable, "-W", "error", "-c", example]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert re.fullmatch(r"\d+ bytes, head \d+\.\d\d ms\n", outputs[0])
    for task in tiny_bundle.manifest.tasks:
        assert task.name in outputs[1]


def test_the_python_of_the_page_on_adaptation_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with RecordFile(tmp_path / "frames.jsonl") as file:
        for record in (RECORD, replace(RECORD, source="local", deadline_ms=1.0)):
            file.write(record)
    count, controller = blocks(ROOT / "docs" / "adaptation.md", "python")
    exec(count, {})  # noqa: S102 - it is our own page
    assert capsys.readouterr().out.splitlines() == [
        "Counter({('edge', 'send'): 1, ('local', 'send'): 1})",
        "1 times in the server's place",
        "1 late or unanswered",
    ]
    made: dict[str, Any] = {"__name__": "page"}
    exec(controller, made)  # noqa: S102
    choose = made["Thrifty"]().choose
    assert choose(Situation(connected=False, exit_available=True)).action == "local"
    assert choose(Situation(connected=True, exit_available=True)).action == "send"
    assert made["agent"].controller.__class__ is made["Thrifty"]


def test_the_pages_show_commands() -> None:
    assert len(commands()) > 5


@pytest.mark.parametrize(("page", "line"), commands())
def test_every_command_and_flag_of_the_pages_exists(page: str, line: str) -> None:
    command = get_command(cli.app)
    words = line.split("#", maxsplit=1)[0].split("|", maxsplit=1)[0].split()
    while hasattr(command, "get_command") and words and not words[0].startswith("-"):
        name = words.pop(0)
        command = command.get_command(None, name)
        assert command is not None, f"{page}: headwater {line}: there is no command {name}"
    flags = {flag for param in command.params for flag in (*param.opts, *param.secondary_opts)} | {"--help"}
    for word in words:
        if word.startswith("-") and word != "-":
            assert word in flags, f"{page}: headwater {line}: there is no flag {word}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in SCENARIOS], ids=lambda page: page.name)
def test_every_setting_of_the_pages_exists(page: Path) -> None:
    sections = settings.registered_sections()
    for block in blocks(page, "toml"):
        for name, table in tomllib.loads(block).items():
            assert set(table) <= set(settings.resolve(sections[name], environment={}).origin), f"{page.name}: [{name}]"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), f"{page.name} links to {target}"
