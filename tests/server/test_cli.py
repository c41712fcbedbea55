from __future__ import annotations

import dataclasses
import subprocess
import sys

import typer.main
from typer.testing import CliRunner

from headwater.server.cli import app
from headwater.server.settings import ServerSettings


def test_every_setting_is_a_flag() -> None:
    command = typer.main.get_command(app)
    flags = {parameter.name for parameter in command.params}
    assert {field.name for field in dataclasses.fields(ServerSettings)} <= flags


def test_help_is_there_and_sub_commands_may_follow() -> None:
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "SIGTERM" in result.output


def test_the_module_imports_neither_grpc_nor_onnxruntime() -> None:
    code = "import sys, headwater.server.cli; print(sorted({'grpc', 'onnxruntime', 'numpy'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
