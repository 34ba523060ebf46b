"""Nodes of a YAML document to typed values, with the messages of Prometheus's decoder.

A fault does not end the decoding: all of a file are collected and reported together.
"""

from __future__ import annotations

from collections.abc import Iterable

import yaml

from promql.duration import DurationError, parse_duration

DOCUMENT_BYTES_LIMIT = 16 << 20

_NULL = "tag:yaml.org,2002:null"
_SHOWN_CHARACTERS = 10


class DecodeError(Exception):
    """The text is no YAML, or a value is refused as a whole."""


def compose(text: str) -> yaml.Node | None:
    """The root node; None for an empty document. Raises DecodeError."""
    if len(text) > DOCUMENT_BYTES_LIMIT:
        raise DecodeError(f"file of {len(text)} characters is over the limit of {DOCUMENT_BYTES_LIMIT}")
    try:
        return yaml.compose(text, Loader=yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise DecodeError(f"yaml: {_syntax_place(error)}{error.problem}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise DecodeError(f"yaml: {error}") from None


def _syntax_place(error: yaml.MarkedYAMLError) -> str:
    """The line that Prometheus's YAML library names: where the unfinished thing begins, and of the parser's
    errors the line before."""
    marks = [mark for mark in (error.context_mark, error.problem_mark) if mark is not None and mark.line]
    if not marks:
        return ""
    line = marks[0].line + isinstance(error, yaml.scanner.ScannerError)
    return f"line {line}: " if line else ""


def place(node: yaml.Node) -> str:
    """`line:column` of a node, both from 1."""
    return f"{node.start_mark.line + 1}:{node.start_mark.column + 1}"


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


class Decoder:
    """Collects `faults`, each with its line."""

    def __init__(self, ignore_unknown_fields: bool) -> None:
        self._ignore_unknown = ignore_unknown_fields
        self.faults: list[str] = []

    def check(self) -> None:
        """Raises DecodeError where there were faults."""
        if self.faults:
            raise DecodeError("\n  ".join(["yaml: unmarshal errors:", *self.faults]))

    def _mismatch(self, node: yaml.Node, wanted: str) -> None:
        shown = "!!map" if isinstance(node, yaml.MappingNode) else "!!seq"
        if isinstance(node, yaml.ScalarNode):
            value = node.value
            if len(value) > _SHOWN_CHARACTERS:
                value = value[: _SHOWN_CHARACTERS - 3] + "..."
            shown = f"!!{node.tag.rpartition(':')[2]} `{value}`"
        self.faults.append(f"line {_line(node)}: cannot unmarshal {shown} into {wanted}")

    def fields(self, node: yaml.Node | None, kind: str, known: Iterable[str]) -> dict[str, yaml.Node]:
        """Values of a mapping by key. Unknown and repeated keys are faults."""
        if node is None or node.tag == _NULL:
            return {}
        if not isinstance(node, yaml.MappingNode):
            self._mismatch(node, kind)
            return {}
        names = frozenset(known)
        found: dict[str, yaml.Node] = {}
        lines: dict[str, int] = {}
        for key, value in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else ""
            if name in lines:
                raise DecodeError(
                    f'yaml: unmarshal errors:\n  line {_line(key)}: mapping key "{name}" already defined at'
                    f" line {lines[name]}"
                )
            lines[name] = _line(key)
            if name in names:
                found[name] = value
            elif not self._ignore_unknown:
                self.faults.append(f"line {_line(key)}: field {name} not found in type {kind}")
        return found

    def items(self, node: yaml.Node | None, kind: str) -> list[yaml.Node]:
        """Items of a sequence."""
        if node is None or node.tag == _NULL:
            return []
        if not isinstance(node, yaml.SequenceNode):
            self._mismatch(node, f"[]{kind}")
            return []
        return list(node.value)

    def text(self, node: yaml.Node | None) -> str:
        """A scalar as it is written; empty for null."""
        if node is None or node.tag == _NULL:
            return ""
        if not isinstance(node, yaml.ScalarNode):
            self._mismatch(node, "string")
            return ""
        return str(node.value)

    def texts(self, node: yaml.Node | None) -> dict[str, str]:
        """A mapping of names to texts."""
        if node is None or node.tag == _NULL:
            return {}
        if not isinstance(node, yaml.MappingNode):
            self._mismatch(node, "map[string]string")
            return {}
        return {self.text(key): self.text(value) for key, value in node.value}

    def integer(self, node: yaml.Node | None) -> int:
        """A whole number; 0 for null."""
        text = self.text(node)
        try:
            return int(text) if text else 0
        except ValueError:
            assert node is not None
            self._mismatch(node, "int")
            return 0

    def duration_ms(self, node: yaml.Node | None) -> int | None:
        """A duration such as `1h30m`; None where it is not given. Raises DecodeError."""
        if node is None:
            return None
        try:
            return parse_duration(self.text(node))
        except DurationError as error:
            raise DecodeError(str(error)) from None
