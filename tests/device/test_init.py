"""The package's public names, and that looking at them costs nothing."""

import subprocess
import sys

import pytest

import headwater.device


def test_every_name_is_there() -> None:
    for name in headwater.device.__all__:
        assert getattr(headwater.device, name).__name__ == name


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(AttributeError, match="'Agnet'; it has Agent"):
        _ = headwater.device.Agnet


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, headwater.device, headwater.device.cli; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"grpc", "onnxruntime", "torch", "PIL", "numpy"} & set(modules)
