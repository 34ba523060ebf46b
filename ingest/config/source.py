"""YAML text to plain values plus the line of every key, so that faults can be placed.

Scalars stay text (or None, or bytes for !!binary): the models convert by the type of the field, as a
YAML library for a typed language does. A password `1234` is text, a limit `1234` a number.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any

import yaml

from ingest.config.errors import ConfigError, Problem

Path = tuple[str | int, ...]

DEPTH_LIMIT = 100
"""Levels of nesting in a configuration file."""
NODE_COUNT_LIMIT = 2_000_000
"""Values in a configuration file after its aliases are expanded."""

_NULL_TAG = "tag:yaml.org,2002:null"
_BINARY_TAG = "tag:yaml.org,2002:binary"
_MERGE_TAG = "tag:yaml.org,2002:merge"


def render_path(path: Path) -> str:
    """`("scrape_configs", 0, "job_name")` as `scrape_configs[0].job_name`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


@dataclass(slots=True)
class Document:
    """A parsed file: `data` of dicts, lists, str, bytes and None; `lines` maps a path to its 1-based line."""

    file: str
    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    node_count: int = 0

    def line_of(self, path: Path) -> int:
        """Line of the path or of its nearest written ancestor; 0 for an empty file."""
        for length in range(len(path), -1, -1):
            line = self.lines.get(path[:length])
            if line is not None:
                return line
        return 0

    def problem(self, path: Path, message: str) -> Problem:
        """A fault at a path."""
        return Problem(self.file, self.line_of(path), render_path(path), message)


def read_yaml(text: str, file: str) -> Document:
    """Parse one YAML document. Raises ConfigError for bad syntax, repeated keys, and too large documents."""
    document = Document(file)
    try:
        node = yaml.compose(text, Loader=yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 0
        raise ConfigError([Problem(file, line, "", f"yaml: {error.problem}")]) from error
    except yaml.YAMLError as error:
        raise ConfigError([Problem(file, 0, "", f"yaml: {error}")]) from error
    if node is not None:
        document.lines[()] = node.start_mark.line + 1
        document.data = _value(node, (), document)
    if document.problems:
        raise ConfigError(document.problems)
    return document


def _value(node: yaml.Node, path: Path, document: Document) -> Any:
    document.node_count += 1
    if document.node_count > NODE_COUNT_LIMIT or len(path) > DEPTH_LIMIT:
        limit = f"{NODE_COUNT_LIMIT} values or {DEPTH_LIMIT} levels"
        raise ConfigError([document.problem(path, f"document exceeds {limit}")])
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, path, document)
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            document.lines[(*path, index)] = item.start_mark.line + 1
            items.append(_value(item, (*path, index), document))
        return items
    assert isinstance(node, yaml.MappingNode)
    return _mapping(node, path, document)


def _scalar(node: yaml.ScalarNode, path: Path, document: Document) -> str | bytes | None:
    if node.tag == _NULL_TAG:
        return None
    if node.tag == _BINARY_TAG:
        try:
            return base64.b64decode(node.value, validate=True)
        except (binascii.Error, ValueError):
            document.problems.append(document.problem(path, "!!binary value contains invalid base64 data"))
            return None
    return str(node.value)


def _mapping(node: yaml.MappingNode, path: Path, document: Document) -> dict[Any, Any]:
    values: dict[Any, Any] = {}
    merged: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        if key_node.tag == _MERGE_TAG:
            sources = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
            for source in sources:
                if isinstance(source, yaml.MappingNode):
                    merged = {**_mapping(source, path, document), **merged}
            continue
        if not isinstance(key_node, yaml.ScalarNode):
            document.problems.append(document.problem(path, "a mapping key must be a scalar"))
            continue
        key: Any = _scalar(key_node, path, document)
        key = "" if key is None else key
        here = (*path, key if isinstance(key, str) else repr(key))
        if key in values:
            line = key_node.start_mark.line + 1
            message = f"field {key} already set in type config.plain"
            document.problems.append(Problem(document.file, line, render_path(here), message))
            continue
        document.lines[here] = key_node.start_mark.line + 1
        values[key] = _value(value_node, here, document)
    return {**merged, **values}
