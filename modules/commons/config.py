"""Configuration: YAML files with ``base_config`` inheritance, parsed into frozen dataclasses.

A file may name parents under ``base_config`` (one path or a list); a path that starts with ``.`` is relative to that
file, any other to the repository. Parents are read depth-first in order, later values win, mappings are merged key by
key. What remains is checked against a dataclass by its type hints, so a typing mistake is an error that names file and
line instead of a key nobody reads.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from modules.commons.errors import ConfigError
from modules.commons.workspace import ROOT
from modules.commons.yaml_nodes import ConfigDumper, ConfigNode, parse_yaml

T = TypeVar("T")

BASE_KEY = "base_config"


def load_config(path: Path, cls: type[T], overrides: Mapping[str, str] | None = None) -> T:
    """Read a YAML file, its parents and the command line's overrides into ``cls``.

    Args:
        path: the YAML file.
        cls: a (frozen) dataclass; fields may be bool, int, float, str, Path, Literal, ``X | None``, tuple, list,
            ``dict[str, X]`` and further dataclasses.
        overrides: ``{"section.key": "text"}``; the text is read as YAML (``"1e-4"``, ``"[1, 2]"``).

    Returns:
        An instance of ``cls``.

    Raises:
        ConfigError: unreadable file, circular parents, unknown or duplicate key, missing key, wrong type; the message
            starts with ``file:line``.
    """
    return _build(_load_merged(path, overrides or {}), cls, "")


def read_mapping(path: Path, overrides: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The merged file as plain Python values, unchecked: for callers that pick a dataclass by one of its keys."""
    return _load_merged(path, overrides or {}).plain()


def dump_config(config: Any) -> str:
    """The resolved configuration (a dataclass instance) as YAML that ``load_config`` reads back to an equal object."""
    return yaml.dump(_plain(config), Dumper=ConfigDumper, sort_keys=False, allow_unicode=True, default_flow_style=None)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _load_merged(path: Path, overrides: Mapping[str, str]) -> ConfigNode:
    node = _read_with_parents(Path(path), ())
    for dotted_key, text in overrides.items():
        node = _merge(node, _override_node(dotted_key, text))
    return node


def _read_with_parents(path: Path, chain: tuple[Path, ...]) -> ConfigNode:
    """The file merged over its parents; ``chain`` holds the files that led here."""
    resolved = path.resolve()
    if resolved in chain:
        names = " -> ".join(_display(p) for p in (*chain, resolved))
        raise ConfigError(f"{_display(path)}: {BASE_KEY} leads back to itself ({names}); remove one of these links.")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise ConfigError(f"{_display(path)}: cannot read this configuration ({reason}).") from error
    own = parse_yaml(text, _display(path))
    items = dict(own.mapping())
    merged = dataclasses.replace(own, value={})
    for parent in _parent_paths(items.pop(BASE_KEY, None), path):
        merged = _merge(merged, _read_with_parents(parent, (*chain, resolved)))
    return _merge(merged, dataclasses.replace(own, value=items))


def _parent_paths(node: ConfigNode | None, path: Path) -> list[Path]:
    if node is None:
        return []
    entries = node.value if isinstance(node.value, list) else [node]
    parents = []
    for entry in entries:
        if not isinstance(entry.value, str):
            raise ConfigError(f"{entry.where}: {BASE_KEY} must be a path or a list of paths, got {entry.kind}.")
        parents.append((path.parent if entry.value.startswith(".") else ROOT) / entry.value)
        if not parents[-1].is_file():
            raise ConfigError(f"{entry.where}: {BASE_KEY} names {entry.value!r}, and {parents[-1]} is not a file.")
    return parents


def _override_node(dotted_key: str, text: str) -> ConfigNode:
    label = f"override {dotted_key}={text}"
    node = parse_yaml(text, label, any_root=True)
    for key in reversed(dotted_key.split(".")):
        if not key:
            raise ConfigError(f"{label}: an override's key looks like 'section.key'.")
        node = ConfigNode({key: node}, label, 1)
    return node


def _merge(base: ConfigNode, top: ConfigNode) -> ConfigNode:
    """``top`` over ``base``: two mappings are merged, anything else is replaced."""
    if not (isinstance(base.value, dict) and isinstance(top.value, dict)):
        return top
    merged = dict(base.value)
    for key, item in top.value.items():
        merged[key] = _merge(merged[key], item) if key in merged else item
    return dataclasses.replace(top, value=merged)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a value stands: its node, and its dotted key for messages."""

    node: ConfigNode
    key: str

    def wrong(self, expected: str) -> ConfigError:
        hint = "; put it in quotes" if "str" in expected and isinstance(self.node.value, (bool, int, float)) else ""
        return ConfigError(
            f"{self.node.where}: {self.key or 'this file'} must be {expected}, got {self.node.kind} "
            f"{self.node.shown()}{hint}."
        )


def _build(node: ConfigNode, cls: type[T], prefix: str) -> T:
    """Check a mapping against a dataclass and make it."""
    if not isinstance(node.value, dict):
        raise _Place(node, prefix).wrong(f"a mapping ({cls.__name__})")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(typing.cast(Any, cls)) if f.init}
    dotted = f"{prefix}." if prefix else ""
    for key, item in node.value.items():
        if key not in fields:
            close = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean {dotted}{close[0]}?" if close else f"known keys: {', '.join(sorted(fields))}."
            raise ConfigError(f"{item.key_where}: unknown key {dotted}{key}; {hint}")
    for name, field in fields.items():
        optional = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if name not in node.value and not optional:
            raise ConfigError(f"{node.where}: missing key {dotted}{name} ({cls.__name__} has no default for it).")
    values = {key: _convert(_Place(item, f"{dotted}{key}"), hints[key]) for key, item in node.value.items()}
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{node.where}: {prefix or cls.__name__} is not valid: {error}") from error


def _convert(place: _Place, hint: Any) -> Any:
    """A node's value as ``hint`` asks for it."""
    origin = typing.get_origin(hint)
    if hint is Any:
        return place.node.plain()
    if origin in (typing.Union, types.UnionType):
        return _convert_union(place, typing.get_args(hint))
    if origin is typing.Literal:
        return _convert_literal(place, typing.get_args(hint))
    if origin in (list, tuple):
        return _convert_sequence(place, origin, typing.get_args(hint))
    if origin in (dict, Mapping):
        return _convert_dict(place, typing.get_args(hint))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _build(place.node, hint, place.key)
    return _convert_scalar(place, hint)


def _convert_scalar(place: _Place, hint: Any) -> Any:
    value = place.node.value
    if hint is float and type(value) in (int, float):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is type(None) and value is None:
        return None
    if hint in (bool, int, str) and type(value) is hint:
        return value
    if hint not in (bool, int, float, str, Path, type(None)):
        raise TypeError(f"{place.key}: configuration cannot hold the type {hint!r}")
    names = {type(None): "empty", int: "an int", Path: "a path (str)"}
    raise place.wrong(names.get(hint, f"a {hint.__name__}"))


def _convert_union(place: _Place, choices: tuple[Any, ...]) -> Any:
    if place.node.value is None and type(None) in choices:
        return None
    concrete = [choice for choice in choices if choice is not type(None)]
    if len(concrete) == 1:
        return _convert(place, concrete[0])
    for choice in sorted(concrete, key=lambda c: c is float):  # int before float, so that 3 stays an int
        try:
            return _convert(place, choice)
        except ConfigError:
            continue
    raise place.wrong(" or ".join(getattr(c, "__name__", str(c)) for c in choices))


def _convert_literal(place: _Place, choices: tuple[Any, ...]) -> Any:
    value = place.node.value
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return choice
    raise place.wrong(f"one of {', '.join(map(repr, choices))}")


def _convert_sequence(place: _Place, origin: type, args: tuple[Any, ...]) -> Any:
    items = place.node.value
    if not isinstance(items, list):
        raise place.wrong("a list")
    if origin is list or (len(args) == 2 and args[1] is Ellipsis):
        hints = [args[0]] * len(items)
    else:
        hints = [] if args == ((),) else list(args)
    if len(hints) != len(items):
        raise place.wrong(f"a list of {len(hints)}")
    pairs = zip(items, hints, strict=True)
    return origin(_convert(_Place(item, f"{place.key}[{i}]"), hint) for i, (item, hint) in enumerate(pairs))


def _convert_dict(place: _Place, args: tuple[Any, ...]) -> dict[str, Any]:
    if not isinstance(place.node.value, dict):
        raise place.wrong("a mapping")
    return {key: _convert(_Place(item, f"{place.key}.{key}"), args[1]) for key, item in place.node.value.items()}


def _display(path: Path) -> str:
    """The path as the user would type it: relative to the repository when it lies there."""
    resolved = path.resolve()
    return str(resolved.relative_to(ROOT)) if resolved.is_relative_to(ROOT) else str(path)
