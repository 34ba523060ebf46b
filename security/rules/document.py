"""YAML documents as trees of nodes that know their place in the file.

Built from the event stream, without recursion, so that a file of a million brackets is an error and not a
crash of the interpreter; aliases share nodes and are never expanded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from security.rules.loadresult import Position

RULES_FILE_BYTES_LIMIT = 16 << 20
NESTING_LIMIT = 64
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))

# libyaml's words on the left, those of Falco's YAML library on the right.
_YAML_CPP_WORDS = {
    "mapping values are not allowed in this context": "illegal map value",
    "mapping values are not allowed here": "illegal map value",
    "block sequence entries are not allowed in this context": "illegal block entry",
    "did not find expected ',' or ']'": "end of sequence flow not found",
    "did not find expected ',' or '}'": "end of map flow not found",
    "did not find expected key": "end of map not found",
    "did not find expected '-' indicator": "end of sequence not found",
    "found unexpected end of stream": "illegal EOF in scalar",
    "found character that cannot start any token": "unknown token",
    "found undefined alias": "the referenced anchor is not defined",
}


@dataclass(slots=True)
class Scalar:
    """A scalar; `plain` tells that it was written without quotes or block indicator."""

    value: str
    plain: bool
    position: Position

    @property
    def is_null(self) -> bool:
        """Whether YAML reads it as null."""
        return self.plain and self.value in _NULLS


@dataclass(slots=True)
class Sequence:
    """A sequence of nodes."""

    position: Position
    items: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class Mapping:
    """A mapping in the order of the file; keys that are not scalars have an empty name."""

    position: Position
    entries: list[tuple[Node, Node]] = field(default_factory=list)

    def get(self, key: str) -> Node | None:
        """The value of the first entry of this name, or None."""
        for name, value in self.entries:
            if isinstance(name, Scalar) and name.value == key:
                return value
        return None

    def names(self) -> Iterator[tuple[str, Node]]:
        """Names with their nodes."""
        for name, _ in self.entries:
            yield (name.value if isinstance(name, Scalar) else ""), name


Node = Scalar | Sequence | Mapping


class DocumentError(Exception):
    """The text is not YAML; `position` is the place."""

    def __init__(self, message: str, position: Position) -> None:
        super().__init__(message)
        self.message = message
        self.position = position


def read_documents(text: str) -> list[Node]:
    """The documents of a YAML stream. Raises DocumentError for malformed YAML and deep nesting."""
    try:
        return list(_compose(text))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Position(mark.index, mark.line, mark.column) if mark else Position()
        problem = error.problem or str(error)
        words = _YAML_CPP_WORDS.get(problem, problem)
        if words == problem and problem.startswith("found undefined alias"):
            words = _YAML_CPP_WORDS["found undefined alias"]
        message = f"yaml-cpp: error at line {place.line + 1}, column {place.column + 1}: {words}"
        raise DocumentError(message, place) from None
    except yaml.YAMLError as error:
        raise DocumentError(f"yaml-cpp: error: {error}".replace("\n", " "), Position()) from None


def _compose(text: str) -> Iterator[Node]:
    stack: list[Sequence | Mapping] = []
    pending: list[Node | None] = []
    anchors: dict[str, Node] = {}
    root: Node | None = None
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.DocumentStartEvent):
            root, anchors = None, {}
        elif isinstance(event, yaml.DocumentEndEvent):
            assert root is not None
            yield root
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            stack.pop()
            pending.pop()
        elif isinstance(event, yaml.NodeEvent):
            node = _node(event, anchors)
            if stack:
                _attach(stack[-1], node, pending)
            else:
                root = node
            if isinstance(event, yaml.CollectionStartEvent):
                assert not isinstance(node, Scalar)
                stack.append(node)
                pending.append(None)
                if len(stack) > NESTING_LIMIT:
                    message = f"yaml-cpp: error: nesting of more than {NESTING_LIMIT} levels"
                    raise DocumentError(message, node.position)


def _node(event: Any, anchors: dict[str, Node]) -> Node:
    mark = event.start_mark
    position = Position(mark.index, mark.line, mark.column)
    if isinstance(event, yaml.AliasEvent):
        known = anchors.get(str(event.anchor))
        if known is None:
            raise yaml.composer.ComposerError(None, None, f"found undefined alias {event.anchor!r}", mark)
        return known
    node: Node
    if isinstance(event, yaml.ScalarEvent):
        node = Scalar(event.value, bool(event.implicit[0]), position)
    elif isinstance(event, yaml.SequenceStartEvent):
        node = Sequence(position)
    else:
        node = Mapping(position)
    if event.anchor is not None:
        anchors[str(event.anchor)] = node
    return node


def _attach(parent: Sequence | Mapping, node: Node, pending: list[Node | None]) -> None:
    if isinstance(parent, Sequence):
        parent.items.append(node)
    elif pending[-1] is None:
        pending[-1] = node
    else:
        parent.entries.append((pending[-1], node))
        pending[-1] = None
