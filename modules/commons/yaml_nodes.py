"""YAML with memory: every value keeps the file and line it came from.

Plain scalars follow YAML 1.2's core schema (``yes`` and ``16:9`` are text, ``1e-4`` is a number), with one courtesy to
older files: digits may be grouped by underscores.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from modules.commons.errors import ConfigError

_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "map", "seq")}
_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^[-+]?[0-9][0-9_]*$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)


@dataclass(frozen=True, slots=True)
class ConfigNode:
    """One YAML value: a scalar, a list of nodes or a dict of nodes, with its place.

    Attributes:
        value: ``None | bool | int | float | str | list[ConfigNode] | dict[str, ConfigNode]``.
        source: file name as shown to the user.
        line: 1-based line of the value.
        key_line: 1-based line of the key it stands under (the value's own line at the root and in lists).
    """

    value: Any
    source: str
    line: int
    key_line: int = field(default=0)

    @property
    def where(self) -> str:
        return f"{self.source}:{self.line}"

    @property
    def key_where(self) -> str:
        return f"{self.source}:{self.key_line or self.line}"

    @property
    def kind(self) -> str:
        """The value's type in words."""
        names = {dict: "a mapping", list: "a list", type(None): "nothing"}
        return names.get(type(self.value), type(self.value).__name__)

    def shown(self) -> str:
        """The value, short enough for a message."""
        if isinstance(self.value, dict):
            return "{" + ", ".join(self.value) + "}"
        text = repr(self.plain())
        return text if len(text) <= 60 else text[:57] + "..."

    def plain(self) -> Any:
        """The value without its places."""
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        return self.value

    def mapping(self) -> dict[str, ConfigNode]:
        """The value as a mapping.

        Raises:
            ConfigError: when it is something else.
        """
        if not isinstance(self.value, dict):
            raise ConfigError(f"{self.where}: a configuration file must hold 'key: value' lines, got {self.kind}.")
        return self.value


def parse_yaml(text: str, source: str, *, any_root: bool = False) -> ConfigNode:
    """Parse one YAML document.

    Args:
        text: the document; an empty one is an empty mapping (with ``any_root``: nothing).
        source: name for messages.
        any_root: accept a scalar or list at the root.

    Raises:
        ConfigError: not YAML, several documents, duplicate key, a key that is not text, a tag, a value that
            holds itself.
    """
    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ConfigError(f"{source}:{line}: this is not valid YAML: {error.problem or error.context}.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: this is not valid YAML: {error}".replace("\n", " ")) from error
    if root is None:
        return ConfigNode(None if any_root else {}, source, 1)
    node = _from_yaml(root, source, frozenset())
    if not any_root:
        node.mapping()
    return node


def _from_yaml(node: yaml.Node, source: str, parents: frozenset[int], key_line: int = 0) -> ConfigNode:
    line = node.start_mark.line + 1
    if id(node) in parents:
        raise ConfigError(f"{source}:{line}: this value refers to itself through an anchor.")
    if node.tag not in _TAGS:
        raise ConfigError(f"{source}:{line}: tag {node.tag} is not allowed; write a plain value.")
    inside = parents | {id(node)}
    if isinstance(node, yaml.MappingNode):
        return ConfigNode(_mapping(node, source, inside), source, line, key_line)
    if isinstance(node, yaml.SequenceNode):
        return ConfigNode([_from_yaml(item, source, inside) for item in node.value], source, line, key_line)
    return ConfigNode(_scalar(node, f"{source}:{line}"), source, line, key_line)


def _mapping(node: yaml.MappingNode, source: str, parents: frozenset[int]) -> dict[str, ConfigNode]:
    items: dict[str, ConfigNode] = {}
    for key_node, value_node in node.value:
        key_line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(f"{source}:{key_line}: a key must be plain text.")
        key = key_node.value
        if key in items:
            raise ConfigError(f"{source}:{key_line}: key {key} stands twice (first on line {items[key].key_line}).")
        items[key] = _from_yaml(value_node, source, parents, key_line)
    return items


def _scalar(node: yaml.Node, where: str) -> Any:
    text: str = node.value
    if isinstance(node, yaml.ScalarNode) and node.style is not None:  # quoted or block: always text
        return text
    if _NULL.match(text):
        return None
    if _BOOL.match(text):
        return text.lower() == "true"
    if _INT.match(text):
        return int(text.replace("_", ""))
    if _FLOAT.match(text):
        bare = text.replace("_", "").lower()
        return float(bare.replace(".inf", "inf").replace(".nan", "nan"))
    return text


class ConfigDumper(yaml.SafeDumper):
    """Writes YAML that ``parse_yaml`` and ordinary readers read alike: text that looks like a number is quoted."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        # PyYAML would write these three bare, and a reader folds them like line ends
        style = '"' if any(separator in text for separator in "\x85\u2028\u2029") else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


ConfigDumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
ConfigDumper.add_representer(str, ConfigDumper.represent_text)
