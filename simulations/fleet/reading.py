"""A table of a TOML file as a frozen dataclass: types checked, unknown keys refused with the nearest known one.

What a section of the product's settings is to :mod:`headwater.compression.settings`, nested: a field can be another
dataclass (a table), a tuple of them (an array of tables), a mapping of numbers, or any kind that a setting can be.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from headwater.compression.errors import SettingsError
from headwater.compression.settings import checked, nearest

T = TypeVar("T")


def read(kind: type[T], table: object, where: str, only: frozenset[str] | None = None) -> T:
    """Make a dataclass of a parsed TOML table; ``only``: the fields that may be given, None for all.

    Raises :class:`SettingsError` with ``where`` in its text.
    """
    if not isinstance(table, Mapping):
        raise SettingsError(f"{where} is {table!r}; it must be a table with keys")
    assert is_dataclass(kind)
    kinds = typing.get_type_hints(kind)
    known = {field.name: field for field in fields(kind) if field.init and (only is None or field.name in only)}
    for key in table:
        if key not in known:
            raise SettingsError(f"{where}: unknown key {key}; {nearest(str(key), known)}")
    for name, field in known.items():
        if name not in table and field.default is MISSING and field.default_factory is MISSING:
            raise SettingsError(f"{where}: {name} is missing, and there is no default")
    values = {key: _value(kinds[key], value, f"{where}: {key}") for key, value in table.items()}
    try:
        return typing.cast("T", kind(**values))
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from error


def plain(value: object) -> Any:  # noqa: ANN401 - what JSON and TOML hold
    """The same as tables, lists and texts; what is at its default is left out, so that :func:`read` gives it back."""
    if is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name))
            for field in fields(value)
            if field.init and getattr(value, field.name) != _default(field)
        }
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def from_folder(value: Any, folder: Path, but: type) -> Any:  # noqa: ANN401 - a dataclass in, the same out
    """Let the relative paths in it start from a folder, but those of one type, which has none that matter."""
    if isinstance(value, but):
        return value
    if isinstance(value, Path):
        return folder / value.expanduser()
    if isinstance(value, tuple):
        return tuple(from_folder(each, folder, but) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        changed = {field.name: from_folder(getattr(value, field.name), folder, but) for field in fields(value)}
        return replace(value, **changed)
    return value


def _default(field: Any) -> object:  # noqa: ANN401 - a field of whatever type
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _value(kind: Any, value: object, where: str) -> object:  # noqa: ANN401 - a type form has no type of its own
    inner = _optional(kind)
    if inner is not None:
        return None if value is None else _value(inner, value, where)
    if is_dataclass(kind):
        return read(typing.cast("type[object]", kind), value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and is_dataclass(arguments[0]):
        return _rows(arguments[0], value, where)
    if origin is Mapping:
        return _mapping(arguments, value, where)
    return checked(kind, value, where)


def _rows(kind: Any, value: object, where: str) -> tuple[object, ...]:  # noqa: ANN401 - a dataclass
    if not isinstance(value, list | tuple):
        raise SettingsError(f"{where} is {value!r}; it must be a list of tables")
    return tuple(read(kind, row, f"{where} {number}") for number, row in enumerate(value, 1))


def _mapping(arguments: tuple[Any, ...], value: object, where: str) -> dict[Any, object]:
    if not isinstance(value, Mapping):
        raise SettingsError(f"{where} is {value!r}; it must be a table with keys")
    key_kind, kind = arguments
    found = {}
    for key, each in value.items():
        try:
            name = checked(key_kind, key_kind(key), f"{where}: a key")
        except ValueError as error:
            raise SettingsError(f"{where}: the key {key!r} is no number") from error
        found[name] = _value(kind, each, f"{where}: {key}")
    return found


def _optional(kind: Any) -> Any:  # noqa: ANN401 - a type form
    """X of ``X | None``, None for any other kind."""
    if typing.get_origin(kind) not in {types.UnionType, typing.Union}:
        return None
    inner = [each for each in typing.get_args(kind) if each is not types.NoneType]
    return inner[0] if len(inner) == 1 else None


def once(what: str, names: list[str]) -> None:
    """Check that a scenario has some of these, save links, and each name once; raises :class:`SettingsError`."""
    if not names and what != "links":
        raise SettingsError(f"a scenario needs {what}; write [[{what}]]")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SettingsError(f"{what}: the name {twice[0]} is there twice")


def known(where: str, name: str, names: tuple[str, ...] | list[str]) -> None:
    """Check that a name is one of those; raises :class:`SettingsError` with the nearest."""
    if name not in names:
        raise SettingsError(f"{where} {name} is not there; {nearest(name, names)}")
