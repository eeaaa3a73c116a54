"""Settings to and from plain dictionaries, strictly: unknown keys and wrong types are refused by name."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from vitreous.errors import UsageError, unknown_name

T = TypeVar("T")


def to_dict(settings: Any) -> dict[str, Any]:
    """A dataclass as JSON-ready values: paths become strings, tuples become lists, nested dataclasses dictionaries."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        if isinstance(value, Path):
            return str(value)
        if isinstance(value, tuple | list):
            return [plain(entry) for entry in value]
        if isinstance(value, Mapping):
            return {str(key): plain(entry) for key, entry in value.items()}
        return value

    return plain(settings)


def from_dict(kind: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Build a frozen dataclass from a dictionary. Raises UsageError for unknown keys and values of the wrong type."""
    hints = typing.get_type_hints(kind)
    known = [field.name for field in dataclasses.fields(kind) if field.init]  # type: ignore[arg-type]
    built: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{where}{key}"
        if key not in known:
            raise unknown_name("setting", name, [f"{where}{entry}" for entry in known])
        built[key] = _coerce(hints[key], value, name)
    try:
        return kind(**built)
    except (TypeError, ValueError) as error:
        raise UsageError(f"Settings for {kind.__name__} do not fit together: {error}.") from error


def read_settings(path: Path) -> dict[str, Any]:
    """The dictionary in a JSON or TOML settings file. Raises UsageError when it cannot be read or parsed."""
    if not path.is_file():
        raise UsageError(f"The settings file {str(path)!r} does not exist.", "Pass a JSON or TOML file to --config.")
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".toml":
            import tomllib

            return tomllib.loads(text)
        values = json.loads(text)
    except (ValueError, OSError) as error:
        raise UsageError(f"The settings file {str(path)!r} is not valid: {error}.") from error
    if not isinstance(values, dict):
        raise UsageError(f"The settings file {str(path)!r} must hold one object, found a {type(values).__name__}.")
    return values


def _coerce(hint: Any, value: Any, name: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        arms = typing.get_args(hint)
        if value is None:
            if type(None) in arms:
                return None
            raise _mismatch(name, hint, value)
        for arm in arms:
            if arm is type(None):
                continue
            try:
                return _coerce(arm, value, name)
            except UsageError:
                continue
        if isinstance(value, str) and (words := [entry for entry in _choices(hint) if isinstance(entry, str)]):
            raise unknown_name(f"value for {name}:", value, words)
        raise _mismatch(name, hint, value)
    if origin is typing.Literal:
        # The type counts too: in Python True == 1 and 3.0 == 3.
        if any(value == entry and type(value) is type(entry) for entry in typing.get_args(hint)):
            return value
        raise unknown_name(f"value for {name}:", str(value), [str(entry) for entry in _choices(hint)])
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise _mismatch(name, hint, value)
        arms = typing.get_args(hint)
        if len(arms) == 2 and arms[1] is Ellipsis:
            return tuple(_coerce(arms[0], entry, name) for entry in value)
        if len(arms) != len(value):
            raise _mismatch(name, hint, value)
        return tuple(_coerce(arm, entry, name) for arm, entry in zip(arms, value, strict=True))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise _mismatch(name, hint, value)
        return from_dict(hint, value, where=f"{name}.")
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, bool):
        raise _mismatch(name, hint, value)
    if isinstance(hint, type) and isinstance(value, hint):
        return value
    raise _mismatch(name, hint, value)


def _choices(hint: Any) -> list[Any]:
    """The values that the Literals in a type name."""
    if typing.get_origin(hint) is typing.Literal:
        return list(typing.get_args(hint))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [entry for arm in typing.get_args(hint) for entry in _choices(arm)]
    return []


def _mismatch(name: str, hint: Any, value: Any) -> UsageError:
    return UsageError(f"The setting {name!r} must be {_in_words(hint)}, got {value!r}.")


def _in_words(hint: Any) -> str:
    """A type as someone who writes a settings file calls it."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_in_words(arm) for arm in typing.get_args(hint))
    if choices := _choices(hint):
        return " or ".join(repr(choice) for choice in choices)
    if typing.get_origin(hint) is tuple:
        return "a list"
    if dataclasses.is_dataclass(hint):
        return "an object"
    return {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a text",
        Path: "a path",
        type(None): "null",
    }.get(hint, str(hint))
