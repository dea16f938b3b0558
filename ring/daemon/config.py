"""Settings: one TOML text becomes one frozen dataclass, checked key by key against its type hints.

Pure: the composition root reads the file.  What a dataclass can hold: str, int, float, bool, Enum (by value), Literal, X | None,
tuple[X, ...], list[X], dict[str, X] and other dataclasses.  An unknown key is an error that names the nearest known one; nothing is
converted silently but int to float.

Standard: TOML 1.0 (tomllib).
"""

from __future__ import annotations

import dataclasses
import tomllib
import types
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from enum import Enum
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ring.errors import BadInput

T = TypeVar("T")


class ConfigError(BadInput):
    """The settings cannot be used; the message names the key's path."""


def parse_config(text: str, kind: type[T], *, source: str = "the configuration") -> T:
    """The settings in ``text`` as a ``kind``; ``source`` is named in errors.  Raises ConfigError."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: not TOML: {error}") from error
    return parse_table(table, kind, source=source)


def parse_table(table: Mapping[str, Any], kind: type[T], *, source: str = "the configuration") -> T:
    """As parse_config, from a table that is already read."""
    try:
        value = _dataclass(table, kind, "")
    except ConfigError as error:
        raise ConfigError(f"{source}: {error.message}", hint=error.hint) from None
    assert isinstance(value, kind)
    return value


def _dataclass(table: Any, kind: type[Any], path: str) -> Any:
    if not isinstance(table, Mapping):
        raise _wrong(path, "a table", table)
    hints = get_type_hints(kind)
    known = {item.name: item for item in dataclasses.fields(kind) if item.init}
    for key in table:
        if key not in known:
            near = get_close_matches(key, known, n=1, cutoff=0.5)
            raise ConfigError(
                f"unknown key {_join(path, key)!r}",
                hint=f"did you mean {near[0]!r}?" if near else f"known keys are {', '.join(sorted(known))}",
            )
    values = {}
    for name, item in known.items():
        if name in table:
            values[name] = _value(table[name], hints[name], _join(path, name))
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{_join(path, name)!r} is missing")
    try:
        return kind(**values)
    except BadInput as error:  # of __post_init__, which checks what types cannot
        raise ConfigError(f"{path}: {error.message}" if path else error.message, hint=error.hint) from error


def _value(value: Any, hint: Any, path: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _dataclass(value, hint, path)
    if origin in (Union, types.UnionType):
        return _union(value, arguments, path)
    if origin is Literal:
        if value not in arguments or type(value) is not type(arguments[arguments.index(value)]):
            raise _wrong(path, "one of " + ", ".join(map(repr, arguments)), value)
        return value
    if origin in (tuple, list, Sequence):
        if not isinstance(value, list):
            raise _wrong(path, "a list", value)
        items = [_value(item, arguments[0], f"{path}[{at}]") for at, item in enumerate(value)]
        return items if origin is list else tuple(items)
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            raise _wrong(path, "a table", value)
        return {key: _value(item, arguments[1], _join(path, key)) for key, item in value.items()}
    if isinstance(hint, type) and issubclass(hint, Enum):
        for member in hint:
            if member.value == value:
                return member
        raise _wrong(path, "one of " + ", ".join(repr(member.value) for member in hint), value)
    return _plain(value, hint, path)


_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def _plain(value: Any, hint: Any, path: str) -> Any:
    while hasattr(hint, "__supertype__"):  # a NewType
        hint = hint.__supertype__
    if hint is Any:
        return value
    assert hint in _NAMES, f"{path}: settings cannot hold {hint}"
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise _wrong(path, _NAMES[hint], value)
    return value


def _union(value: Any, arguments: tuple[Any, ...], path: str) -> Any:
    """TOML has no null: None can only come from a default.  The first member that fits is taken."""
    members = [member for member in arguments if member is not type(None)]
    for member in members[:-1]:
        try:
            return _value(value, member, path)
        except ConfigError:
            continue  # the last member says what is wrong
    return _value(value, members[-1], path)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _wrong(path: str, expected: str, value: Any) -> ConfigError:
    return ConfigError(f"{path!r} must be {expected}, not {value!r}"[:300])
