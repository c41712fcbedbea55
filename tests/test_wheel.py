"""The wheel: built from the tree's own files, installed where the tree is not, it works."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command with nothing of this tree on its path; returns what it printed."""
    hidden = ("PYTHON", "HEADWATER_", "COV_", "VIRTUAL_ENV")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    environment |= {"COLUMNS": "120", "TERM": "dumb"}
    arguments = [str(part) for part in command]
    done = subprocess.run(arguments, cwd=cwd, env=environment, text=True, capture_output=True, check=False, timeout=300)
    assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy of the files that git knows or would add, so that nothing built earlier slips in."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).splitlines()
    for name in listed:
        if (ROOT / name).is_file():
            (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / "tree" / name)
    build = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist")
    run(*build, cwd=folder / "tree")
    (built,) = (folder / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel in an environment of its own, which borrows everything else from this one."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home / "venv", with_pip=False, symlinks=True)
    python = home / "venv" / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home).strip())
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", python)
    run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=home)
    # Installed packages come after the new ones. A line that is a path runs no .pth of that path, so the editable
    # install of this tree stays out.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"headwater"}
    for needed in (
        "py.typed",
        "compression/py.typed",
        "protos/edge.proto",
        "protos/edge_pb2.pyi",
        "server/training/__init__.py",
    ):
        assert f"headwater/{needed}" in names
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)


def test_the_extensions_of_the_wheel_are_for_every_python(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for extension in ("compression/_rans", "device/control/_ways", "simulations/fleet/_core"):
        assert f"headwater/{extension}.abi3.so" in names


def test_the_installed_coder_is_the_c_one(python: Path) -> None:
    code = """
import headwater.compression.coder, headwater.compression._rans as rans
print(rans.__file__)
"""
    where = Path(run(python, "-c", code, cwd=python.parent).strip())
    assert where.is_relative_to(python.parents[1])


def test_a_clone_in_the_folder_where_python_starts_hides_nothing(python: Path, tmp_path: Path) -> None:
    """As after `git clone` and `pip install ./headwater`, from where a program of one's own is."""
    (tmp_path / "headwater" / "compression").mkdir(parents=True)
    (tmp_path / "headwater" / "compression" / "__init__.py").touch()
    said = run(python, "-c", "import headwater.compression as here; print(here.__file__)", cwd=tmp_path)
    assert Path(said.strip()).is_relative_to(python.parents[1])


def test_the_installed_command_runs(python: Path) -> None:
    headwater = python.with_name("headwater")
    output = run(headwater, "--help", cwd=python.parent)
    for name in ("bundle", "config", "demo", "device", "server", "train"):
        assert f" {name} " in output
    assert "Not available" not in output
    assert run(headwater, "--version", cwd=python.parent).startswith("headwater 0.")


def test_every_module_imports_where_it_is_installed(python: Path) -> None:
    code = """
import importlib, pathlib, headwater.compression
root = pathlib.Path(headwater.compression.__file__).parents[1]
print(root)
for path in sorted(root.rglob("*.py")):
    name = ".".join(["headwater", *path.relative_to(root).with_suffix("").parts]).removesuffix(".__init__")
    if not name.endswith("__main__"):
        importlib.import_module(name)
"""
    assert Path(run(python, "-c", code, cwd=python.parent).strip()).is_relative_to(python.parents[1])
