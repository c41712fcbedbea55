"""What a model bundle says of itself: ``manifest.json`` as frozen dataclasses.

The manifest names every file of the bundle with its SHA-256, so the hash of the manifest's own bytes identifies the
whole bundle. It is data only: reading one never runs anything.

    schema 1
    ├── name, created, parent          what it is called, when it was built, the bundle it came from
    ├── answers_for[]                  earlier bundles whose frames it answers too
    ├── input, latent                  what the head takes, the shape that it gives
    ├── modes[]                        (width, gain) pairs with what each costs and yields, measured on held-out data
    ├── tasks[]                        name, kind and labels, each with a tail
    ├── exit                           which task the device can answer by itself, if any
    ├── files{}                        SHA-256 and size of every other file
    └── recipe, data, measured         how it was trained, on what (with licence), figures for people
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from headwater.compression.errors import BundleError
from headwater.compression.image import InputSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA = 1
MAX_MODES = 64
MAX_MANIFEST_BYTES = 1 << 20
MAX_TEXT = 10_000
MAX_DEPTH = 32
TaskKind = Literal["classify", "image"]
TASK_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class LatentSpec:
    """Shape of the full latent, [C, H, W]."""

    channels: int
    height: int
    width: int

    def __post_init__(self) -> None:
        """Check the ranges; raises :class:`BundleError`."""
        if not (1 <= self.channels <= 255 and 1 <= self.height <= 1024 and 1 <= self.width <= 1024):
            raise BundleError(
                f"latent is {self.channels}x{self.height}x{self.width}; want 1..255 channels, sides 1..1024"
            )


@dataclass(frozen=True)
class Cut:
    """A mode's frames cut after their first channel groups, measured on held-out data."""

    groups: int
    """Channel groups that are left, 1 to one fewer than all."""
    mean_bytes: float
    accuracy: Mapping[str, float]
    """Accuracy of each task with labels, 0 to 1."""


@dataclass(frozen=True)
class Mode:
    """One way to code a frame, with what it costs and yields on held-out data."""

    index: int
    """Position in the manifest's list; this number travels in each frame."""
    width: float
    """Share of the head's channels that is used, such as 0.25."""
    gain: int
    """0 is the coarsest quantisation, with the fewest bytes."""
    channels: int
    """Latent channels sent: a prefix of the latent's."""
    mean_bytes: float
    """Mean size of a frame on a stream, header included."""
    p95_bytes: float
    accuracy: Mapping[str, float]
    """Accuracy of each task, 0 to 1."""
    balanced_accuracy: Mapping[str, float]
    auroc: Mapping[str, float]
    """Area under the ROC curve (mean of one class against the rest), 0 to 1."""
    head_macs: int
    """Multiply-adds of the head for one image."""
    head_parameters: int
    psnr_db: Mapping[str, float] = field(default_factory=dict)
    """Mean peak signal-to-noise ratio of each task that gives an image."""
    cuts: tuple[Cut, ...] = ()
    """What is lost when only the first channel groups arrive, fewest groups first."""

    @property
    def head_file(self) -> str:
        """Name of the head's graph in the bundle."""
        return head_file(self.width)


def head_file(width: float) -> str:
    """Name of the graph of the head of this width, such as ``head_0.25.onnx``."""
    return f"head_{width:g}.onnx"


def for_server(name: str) -> bool:
    """Whether only a server, or training, reads the file of this name: a device may do without."""
    return name.startswith("tail_") or name in {"decoder.onnx", "weights.safetensors"}


@dataclass(frozen=True)
class Task:
    """One question that the bundle answers about an image."""

    name: str
    labels: tuple[str, ...]
    """Class names in the order of the tail's outputs; none for an image."""
    kind: TaskKind = "classify"
    """``image``: the tail gives the picture back, for people to look at."""

    @property
    def tail_file(self) -> str:
        """Name of the tail's graph in the bundle."""
        return f"tail_{self.name}.onnx"

    @property
    def output(self) -> str:
        """Name of the tail's output."""
        return "logits" if self.kind == "classify" else "image"


@dataclass(frozen=True)
class Exit:
    """The small classifier by which a device answers confident frames itself: ``exit.onnx``, ``exit.safetensors``."""

    task: str
    macs: int
    """Multiply-adds for one image, beside the head's."""


@dataclass(frozen=True)
class FileEntry:
    """Hash and size of a file of the bundle."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """See the module's text for the layout."""

    name: str
    created: str
    """Time of building, ISO 8601 with the zone."""
    input: InputSpec
    latent: LatentSpec
    modes: tuple[Mode, ...]
    tasks: tuple[Task, ...]
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    parent: str | None = None
    """Hex id of the bundle that this one was made from."""
    answers_for: tuple[str, ...] = ()
    """Hex ids of earlier bundles with the same heads, tables and decoder: a server answers their frames too."""
    exit: Exit | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    """Name, licence and split of the training data."""
    measured: Mapping[str, Any] = field(default_factory=dict)
    """Figures for people: the teacher's accuracy, number of test images, latency of the graphs."""
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        """Cross-check the parts; raises :class:`BundleError`."""
        if not 1 <= len(self.modes) <= MAX_MODES:
            raise BundleError(f"the manifest lists {len(self.modes)} modes; want 1 to {MAX_MODES}")
        if [mode.index for mode in self.modes] != list(range(len(self.modes))):
            raise BundleError("the modes' indices are not 0, 1, 2, ... in order")
        if [(m.width, m.gain) for m in self.modes] != sorted({(m.width, m.gain) for m in self.modes}):
            raise BundleError("the modes are not sorted by (width, gain) or repeat a pair")
        if not self.tasks:
            raise BundleError("the manifest lists no task; a bundle answers at least one")
        if not self.tasks[0].labels:
            raise BundleError(
                f"the first task, {self.tasks[0].name}, gives an image; one with labels has to come first"
            )
        if self.exit is not None and self.exit.task not in {task.name for task in self.tasks if task.labels}:
            raise BundleError(f"the local exit answers {self.exit.task!r}, which is no task with labels of this bundle")
        for mode in self.modes:
            if not 1 <= mode.channels <= self.latent.channels:
                raise BundleError(
                    f"mode {mode.index} sends {mode.channels} channels; the latent has {self.latent.channels}"
                )

    @property
    def widths(self) -> tuple[float, ...]:
        """The widths, ascending."""
        return tuple(sorted({mode.width for mode in self.modes}))

    def missing_files(self) -> list[str]:
        """Names of the files that inference needs and :attr:`files` does not list."""
        needed = {mode.head_file for mode in self.modes} | {task.tail_file for task in self.tasks}
        if self.exit is not None:
            needed |= {"exit.onnx", "exit.safetensors"}
        return sorted((needed | {"decoder.onnx", "tables.safetensors"}) - set(self.files))

    def replace_files(self, files: Mapping[str, FileEntry]) -> Manifest:
        """The same manifest with other files."""
        return dataclasses.replace(self, files=files)

    def to_json(self) -> bytes:
        """The bytes of ``manifest.json``: sorted keys, so that the same manifest always has the same id."""
        plain = dataclasses.asdict(self)
        return json.dumps(plain, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Parse and check; raises :class:`BundleError` for anything that is not a manifest of this schema."""
        if len(data) > MAX_MANIFEST_BYTES:
            raise BundleError(f"manifest.json has {len(data)} bytes; the most that is read is {MAX_MANIFEST_BYTES}")
        try:
            plain = json.loads(data, parse_constant=_no_constant, parse_float=_finite)
            _check_schema(plain)
            _check_depth(plain)
            return cls(
                name=_text(plain["name"]),
                created=_text(plain["created"]),
                input=InputSpec.from_json(plain["input"]),
                latent=LatentSpec(**{key: _integer(value) for key, value in plain["latent"].items()}),
                modes=tuple(_mode(mode) for mode in plain["modes"]),
                tasks=tuple(_task(task) for task in plain["tasks"]),
                files={_file_name(name): _entry(entry) for name, entry in plain["files"].items()},
                parent=None if plain["parent"] is None else _text(plain["parent"]),
                answers_for=tuple(_bundle_id(each) for each in plain.get("answers_for", ())),
                exit=None if plain.get("exit") is None else _exit(plain["exit"]),
                recipe=dict(plain["recipe"]),
                data=dict(plain["data"]),
                measured=dict(plain["measured"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BundleError(f"manifest.json is not a bundle manifest of schema {SCHEMA}: {error!r}") from error


def _check_schema(plain: Mapping[str, Any]) -> None:
    if plain.get("schema") != SCHEMA:
        raise BundleError(
            f"the bundle's schema is {plain.get('schema')!r}; this version reads schema {SCHEMA}: "
            "build the bundle again with `headwater train`, or install the version that made it"
        )


def _check_depth(value: object, left: int = MAX_DEPTH) -> None:
    """What is written again has to be as shallow as what is read: Python's own stack bounds both."""
    if not left:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in inner:
        _check_depth(each, left - 1)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text:.80} is beyond what a float holds")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise TypeError(f"{value!r:.80} is not a text of at most {MAX_TEXT} characters")
    return value


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"{value!r:.80} is not a whole number of at least 0")
    return value


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= sys.float_info.max:
        raise TypeError(f"{value!r:.80} is not a number of at least 0")
    return float(value)


def _mode(plain: Mapping[str, Any]) -> Mode:
    whole = {key: _integer(plain[key]) for key in ("index", "gain", "channels", "head_macs", "head_parameters")}
    real = {key: _number(plain[key]) for key in ("width", "mean_bytes", "p95_bytes")}
    scores = {
        key: {_task_name(task): _number(value) for task, value in plain[key].items()}
        for key in ("accuracy", "balanced_accuracy", "auroc")
    }
    psnr_db = {_task_name(task): _number(value) for task, value in plain.get("psnr_db", {}).items()}
    cuts = tuple(_cut(cut) for cut in plain.get("cuts", ()))
    return Mode(**whole, **real, **scores, psnr_db=psnr_db, cuts=cuts)  # type: ignore[arg-type]  # each group is of one type


def _cut(plain: Mapping[str, Any]) -> Cut:
    accuracy = {_task_name(task): _number(value) for task, value in plain["accuracy"].items()}
    return Cut(_integer(plain["groups"]), _number(plain["mean_bytes"]), accuracy)


def _exit(plain: Mapping[str, Any]) -> Exit:
    return Exit(_task_name(plain["task"]), _integer(plain["macs"]))


def _bundle_id(text: object) -> str:
    if not (isinstance(text, str) and _DIGEST.fullmatch(text)):
        raise ValueError(f"{text!r:.80} is no bundle id; want 64 lower-case hex digits")
    return text


def _task(plain: Mapping[str, Any]) -> Task:
    labels = tuple(_text(label) for label in plain["labels"])
    kind = plain.get("kind", "classify")
    if kind not in get_args(TaskKind):
        raise ValueError(f"the task {plain['name']!r} is of kind {kind!r}; want one of {', '.join(get_args(TaskKind))}")
    if (kind == "classify") is not (len(labels) >= 2) or (kind == "image" and labels):
        raise ValueError(
            f"the task {plain['name']!r} ({kind}) has {len(labels)} labels; want 2 or more, none for an image"
        )
    return Task(_task_name(plain["name"]), labels, kind)


def _file_name(name: str) -> str:
    # A name with a slash or a leading dot could leave the bundle's directory.
    if not _FILE_NAME.fullmatch(name):
        raise BundleError(f"the manifest names a file {name!r}; names are letters, digits, '.', '_' and '-' only")
    return name


def _task_name(name: str) -> str:
    if not TASK_NAME.fullmatch(name):
        raise BundleError(f"a task is named {name!r}; names are lower-case letters, digits and '_', at most 32")
    return name


def _entry(entry: Mapping[str, Any]) -> FileEntry:
    digest, size = entry["sha256"], entry["size"]
    if not (isinstance(digest, str) and _DIGEST.fullmatch(digest) and isinstance(size, int) and size >= 0):
        raise BundleError(f"a file's entry is {entry!r}; want a SHA-256 in lower-case hex and a size in bytes")
    return FileEntry(digest, size)
