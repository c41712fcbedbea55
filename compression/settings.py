"""Layered settings: flag > environment > file > default, with every value's origin kept.

A *section* is a frozen dataclass that names itself; its fields are the keys, their defaults the lowest layer, and
``__post_init__`` checks what a type cannot say::

    @dataclass(frozen=True)
    class DeviceSettings:
        \"\"\"What the agent on the device can be told.\"\"\"

        section: ClassVar[str] = "device"

        server: str = "127.0.0.1:50051"
        \"\"\"Address of the edge server, host:port.\"\"\"
        threads: int = 2
        \"\"\"Threads of the head's inference session.\"\"\"

        def __post_init__(self) -> None:
            between("threads", self.threads, 1, 64)

and a command resolves it with the flags that it was given, ``None`` for one that was not::

    settings = resolve(DeviceSettings, {"server": server, "threads": threads}, file=config).value

=============  =====================================================================================
layer          where
=============  =====================================================================================
flag           ``--server edge:50051``
environment    ``HEADWATER_DEVICE_SERVER=edge:50051``; a list is separated by commas
file           ``server = "edge:50051"`` under ``[device]`` in one TOML file, the first that there is of
               ``--config PATH``, ``HEADWATER_CONFIG``, ``./headwater.toml`` and
               ``~/.config/headwater/config.toml``; its relative paths start from its own folder
default        the dataclass
=============  =====================================================================================

A key can be a ``bool``, ``int``, ``float``, ``str``, ``Path``, a ``Literal`` of texts, a tuple of one of these
(``tuple[float, ...]``; written as a list, or as one text with commas), or one of them ``| None``, which an empty text
sets to ``None``. Unknown sections and keys are errors that name the nearest known one. Sections register in the
entry-point group ``headwater.settings`` (``device = "headwater.device.settings:DeviceSettings"``), so that this module
names neither end.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class PotSettings:
    ...     section: ClassVar[str] = "pot"
    ...     litres: float = 1.5
    ...     tea: Literal["green", "black"] = "green"
    >>> pot = resolve(PotSettings, {"litres": None, "tea": "black"}, environment={"HEADWATER_POT_LITRES": "2"})
    >>> pot.value
    PotSettings(litres=2.0, tea='black')
    >>> print(pot.origin["litres"], "/", pot.origin["tea"])
    environment HEADWATER_POT_LITRES / flag --tea
    >>> resolve(PotSettings, {"tea": "oolong"}, environment={})
    Traceback (most recent call last):
    headwater.compression.errors.SettingsError: --tea is 'oolong'; it must be one of green, black.
"""

import ast
import difflib
import inspect
import os
import sys
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

from headwater.compression.errors import SettingsError

ENTRY_POINTS = "headwater.settings"
PREFIX = "HEADWATER_"
RESERVED = {
    "HEADWATER_CONFIG": "path of the configuration file",
    "HEADWATER_DEBUG": "1: an error ends with its traceback",
}
"""Variables that belong to the command itself and to no section."""

LARGEST = sys.float_info.max
"""What a number may be at most: neither infinity nor nan is one."""
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


class Section(Protocol):
    """A frozen dataclass that names itself; what :func:`resolve` takes."""

    section: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


SectionT = TypeVar("SectionT", bound=Section)
Layer = Literal["flag", "environment", "file", "default"]


@dataclass(frozen=True)
class Origin:
    """Where one value came from: its layer, and the flag, variable or file in it (empty for a default)."""

    layer: Layer
    where: str = ""

    def __str__(self) -> str:
        """Read as ``environment HEADWATER_DEVICE_SERVER``."""
        return f"{self.layer} {self.where}".rstrip()


@dataclass(frozen=True)
class Resolved(Generic[SectionT]):
    """A section with every value in its type, and where each came from."""

    value: SectionT
    origin: Mapping[str, Origin]


def resolve(
    section: type[SectionT],
    flags: Mapping[str, object | None] = types.MappingProxyType({}),
    *,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Resolved[SectionT]:
    """Resolve a section's keys through all layers.

    ``flags`` maps keys to what the command line gave, ``None`` where it gave nothing. ``environment`` is
    ``os.environ`` unless a test gives another. ``file`` is what ``--config`` named; without it the places of the
    module's docstring are searched, and that no file is there is no error.

    Raises :class:`SettingsError` for an unknown key, a value of the wrong type or out of range, and a file that is
    missing or no TOML.
    """
    environment = os.environ if environment is None else environment
    layers = _Layers(section)
    path = find_file(environment, file)
    if path is not None:
        layers.add_file(path)
    layers.add_environment(environment)
    layers.add_flags(flags)
    return layers.resolved()


def find_file(environment: Mapping[str, str], file: Path | None = None) -> Path | None:
    """Find the one configuration file to read: a named one must exist, the usual places may be empty."""
    named = file if file is not None else Path(environment.get("HEADWATER_CONFIG") or "").expanduser()
    if named != Path():
        if not named.is_file():
            source = "--config" if file is not None else "HEADWATER_CONFIG"
            raise SettingsError(
                f"{named} is not a file, but {source} names it as the configuration; correct the path or drop it."
            )
        return named
    places = [Path("headwater.toml")]
    if base := environment.get("XDG_CONFIG_HOME"):
        places.append(Path(base) / "headwater" / "config.toml")
    elif home := environment.get("HOME"):
        places.append(Path(home) / ".config" / "headwater" / "config.toml")
    return next((place for place in places if place.is_file()), None)


def registered_sections() -> dict[str, type[Section]]:
    """Load every section of the entry-point group ``headwater.settings``, by name."""
    return {point.name: point.load() for point in sorted(entry_points(group=ENTRY_POINTS))}


def variable(section: str, key: str) -> str:
    """Name the environment variable of a key: ``("device", "server")`` is ``HEADWATER_DEVICE_SERVER``."""
    return f"{PREFIX}{section}_{key}".upper()


def descriptions(section: type[Section]) -> dict[str, str]:
    """Read each key's docstring (the text under the field) out of the section's source; keys without one are absent."""
    (class_node,) = ast.parse(inspect.cleandoc(f"\n{inspect.getsource(section)}")).body
    assert isinstance(class_node, ast.ClassDef)
    texts: dict[str, str] = {}
    for line, following in zip(class_node.body, class_node.body[1:], strict=False):
        match line, following:
            case ast.AnnAssign(target=ast.Name(id=key)), ast.Expr(value=ast.Constant(value=str(text))):
                texts[key] = inspect.cleandoc(text)
    return texts


def between(key: str, value: float, lowest: float, highest: float) -> None:
    """Raise :class:`SettingsError` unless ``lowest <= value <= highest``; for a section's ``__post_init__``."""
    if not lowest <= value <= highest:
        raise SettingsError(f"{key} is {value}; it must be from {lowest} to {highest}.")


def nearest(word: str, known: Iterable[str]) -> str:
    """Say which of the known words is meant: a closing clause for an error about an unknown one."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known) or 'none'}."


class _Layers:
    """The layers of one section, filled from the lowest upwards; what comes later wins."""

    def __init__(self, section: type[SectionT]) -> None:
        self.section = section
        self.kinds = {key: kind for key, kind in typing.get_type_hints(section).items() if key in _keys(section)}
        self.values: dict[str, object] = {}
        self.origin = dict.fromkeys(_keys(section), Origin("default"))

    def add_file(self, path: Path) -> None:
        document = read_file(path)
        sections = _section_names(self.section.section)
        for name, table in document.items():
            if name not in sections:
                raise SettingsError(f"{path}: unknown section [{name}]; {nearest(name, sections)}")
            if not isinstance(table, dict):
                raise SettingsError(
                    f"{path}: {name} is {table!r}, but it names a section; write [{name}] and its keys below it."
                )
        for key, value in document.get(self.section.section, {}).items():
            where = f"{path}: [{self.section.section}] {key}"
            if key not in self.kinds:
                raise SettingsError(
                    f"{path}: unknown key {key} in [{self.section.section}]; {nearest(key, self.kinds)}"
                )
            converted = checked(self.kinds[key], value, where)
            self._set(key, _from_folder(converted, path.parent), Origin("file", str(path)))

    def add_environment(self, environment: Mapping[str, str]) -> None:
        names = {variable(self.section.section, key): key for key in self.kinds}
        others = tuple(variable(name, "") for name in _section_names(self.section.section) - {self.section.section})
        for name in sorted(name for name in environment if name.startswith(PREFIX)):
            if name in names:
                key = names[name]
                value = checked(self.kinds[key], _from_text(self.kinds[key], environment[name]), name)
                self._set(key, value, Origin("environment", name))
            elif name not in RESERVED and not name.startswith(others):
                raise SettingsError(
                    f"environment: unknown variable {name}; {nearest(name, {*names, *others, *RESERVED})}"
                )

    def add_flags(self, flags: Mapping[str, object | None]) -> None:
        for key, value in flags.items():
            assert key in self.kinds, f"{self.section.__name__} has no key {key}"
            if value is not None:
                self._set(key, checked(self.kinds[key], value, _flag(key)), Origin("flag", _flag(key)))

    def resolved(self) -> Resolved[Any]:
        missing = [key for key in self.kinds if key not in self.values and key in _without_default(self.section)]
        if missing:
            ways = ", ".join(f"{_flag(key)} ({variable(self.section.section, key)})" for key in missing)
            raise SettingsError(f"{self.section.section}: nothing sets {ways}, and there is no default.")
        try:
            return Resolved(self.section(**self.values), types.MappingProxyType(self.origin))
        except SettingsError as error:
            given = "; ".join(f"{key} from {self.origin[key]}" for key in self.values)
            raise SettingsError(f"{self.section.section}: {error} (Set were: {given or 'only defaults'}.)") from error

    def _set(self, key: str, value: object, origin: Origin) -> None:
        self.values[key] = value
        self.origin[key] = origin


def read_file(path: Path) -> dict[str, Any]:
    """Parse one TOML file; :class:`SettingsError` says what is wrong with it."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsError(f"{path} cannot be read as TOML: {error}") from error


def _flag(key: str) -> str:
    return "--" + key.replace("_", "-")


def _keys(section: type[Section]) -> list[str]:
    return [field.name for field in fields(section) if field.init]


def _without_default(section: type[Section]) -> set[str]:
    return {field.name for field in fields(section) if field.default is MISSING and field.default_factory is MISSING}


def _section_names(own: str) -> set[str]:
    return {own, *(point.name for point in entry_points(group=ENTRY_POINTS))}


def _from_text(kind: Any, text: str) -> object:  # noqa: ANN401 - a type form such as Literal[...] has no type of its own
    """Read a variable's text as the kind asks; text that does not read is returned as it is, for the check to name."""
    inner = _optional(kind)
    if inner is not None:
        return None if not text else _from_text(inner, text)
    if typing.get_origin(kind) is tuple:
        return [_from_text(typing.get_args(kind)[0], part.strip()) for part in text.split(",")] if text else []
    if kind is bool:
        return True if text.lower() in _TRUE else False if text.lower() in _FALSE else text
    try:
        return kind(text) if kind in {int, float} else text
    except ValueError:
        return text


def checked(kind: Any, value: object, where: str) -> object:  # noqa: ANN401 - see _from_text
    """Convert a native value to the kind, strictly (true is no integer), or raise SettingsError."""
    inner = _optional(kind)
    if inner is not None:
        return None if value is None or value == "" else checked(inner, value, where)
    if typing.get_origin(kind) is tuple and isinstance(value, str):
        value = _from_text(kind, value)
    if typing.get_origin(kind) is tuple and isinstance(value, list | tuple):
        return tuple(checked(typing.get_args(kind)[0], item, where) for item in value)
    if typing.get_origin(kind) is Literal and value in typing.get_args(kind):
        return value
    if kind is float and type(value) in {int, float} and abs(number := typing.cast("float", value)) <= LARGEST:
        return float(number)
    if kind is Path and isinstance(value, str | Path):
        return _at_home(Path(value), where)
    if kind in {bool, int, str} and type(value) is kind:
        return value
    raise SettingsError(f"{where} is {value!r}; it must be {_wanted(kind)}.")


def _at_home(path: Path, where: str) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise SettingsError(f"{where} is {str(path)!r}, and there is no such home folder: {error}") from error


def _wanted(kind: Any) -> str:  # noqa: ANN401 - see _from_text
    if typing.get_origin(kind) is tuple:
        return f"a list, each item {_wanted(typing.get_args(kind)[0])}"
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(kind)))
    return {bool: "true or false", int: "an integer", float: "a number", str: "a text", Path: "a path"}[kind]


def _optional(kind: Any) -> Any:  # noqa: ANN401 - see _from_text
    """Give X of ``X | None``, or None for any other kind."""
    if typing.get_origin(kind) not in {types.UnionType, typing.Union}:
        return None
    (inner,) = set(typing.get_args(kind)) - {types.NoneType}
    return inner


def _from_folder(value: object, folder: Path) -> object:
    """Let the relative paths in a file start from its folder."""
    if isinstance(value, Path):
        return folder / value
    return tuple(_from_folder(item, folder) for item in value) if isinstance(value, tuple) else value
