"""Conditions evaluated event by event, straight from the tree: slow, obvious, and without any shared code
with the columnar engine beyond the table of fields."""

from __future__ import annotations

import base64
import fnmatch
import ipaddress
import re
from typing import Any

from security.fields.table import FieldTable
from security.rules.ast import And, Call, Compare, Exists, Field, Node, Not, Operand, Or, Text
from security.rules.index import CompiledRule

Event = dict[tuple[str, str | None], Any]
"""Values by field and argument; a list is a tuple; what is not there is missing."""


def matching_rules(rules: list[CompiledRule], event: Event, table: FieldTable, first: bool) -> list[str]:
    """Names of the rules that match, in order; only the first one when `first`."""
    names = []
    for rule in rules:
        if rule.enabled and holds(rule.condition, event, table):
            names.append(rule.name)
            if first:
                break
    return names


def holds(node: Node, event: Event, table: FieldTable) -> bool:
    """Whether an event satisfies a condition."""
    if isinstance(node, And):
        return all(holds(child, event, table) for child in node.children)
    if isinstance(node, Or):
        return any(holds(child, event, table) for child in node.children)
    if isinstance(node, Not):
        return not holds(node.child, event, table)
    assert isinstance(node, (Exists, Compare))
    value = value_of(node.left, event, table)
    if value is None:
        return False
    if isinstance(node, Exists):
        return True
    kind, flags = type_of(node.left, table)
    if node.right is not None:
        other = value_of(node.right, event, table)
        if other is None:
            return False
        rights = list(other) if isinstance(other, tuple) else [other]
    else:
        rights = [literal(kind, text, node.operator) for text in node.values]
    return compare(value, node.operator, rights, node.modifier, kind, flags)


def compare(
    value: Any, operator: str, rights: list[Any], modifier: str | None, kind: str, flags: str
) -> bool:
    values = list(value) if isinstance(value, tuple) else [value]
    if modifier is not None:
        answers = [one(value, operator, right, kind) for right in rights]
        if modifier == "oneof":
            return answers.count(True) == 1
        return bool(answers) and (any(answers) if modifier == "anyof" else all(answers))

    def passes(part: Any) -> bool:
        if operator == "!=":
            return not any(one(part, "=", right, kind) for right in rights)
        return any(one(part, operator, right, kind) for right in rights)

    if isinstance(value, tuple):
        if operator == "in" and "Y" not in flags and "E" not in flags:
            return all(passes(part) for part in values)
        if operator == "!=" and "E" in flags:
            return all(passes(part) for part in values)
    return any(passes(part) for part in values)


def one(value: Any, operator: str, right: Any, kind: str) -> bool:
    if kind == "IPNET":
        inside = value.version == right.version and value in right
        return not inside if operator == "!=" else inside
    if operator in ("=", "==", "in", "intersects"):
        return bool(value == right)
    if operator == "!=":
        return bool(value != right)
    if operator in ("<", "<=", ">", ">="):
        return bool(
            {"<": value < right, "<=": value <= right, ">": value > right}.get(operator, value >= right)
        )
    if operator in ("startswith", "bstartswith"):
        return bool(value.startswith(right))
    if operator == "endswith":
        return bool(value.endswith(right))
    if operator in ("contains", "bcontains"):
        return right in value
    if operator == "icontains":
        return lower(right) in lower(value)
    if operator == "glob":
        return fnmatch.fnmatchcase(value, right)
    if operator == "iglob":
        return fnmatch.fnmatchcase(lower(value), lower(right))
    if operator == "regex":
        return re.fullmatch(right, value, re.DOTALL) is not None
    assert operator == "pmatch"
    path, prefix = path_parts(value), path_parts(right)
    return path[: len(prefix)] == prefix


def path_parts(path: str) -> list[str]:
    parts = [part for part in path.split("/") if part]
    return ["/", *parts] if path.startswith("/") else parts


def lower(text: str) -> str:
    return "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in text)


def upper(text: str) -> str:
    return "".join(chr(ord(c) - 32) if "a" <= c <= "z" else c for c in text)


def literal(kind: str, text: str, operator: str) -> Any:
    if operator in ("bcontains", "bstartswith"):
        return bytes.fromhex(text)
    if kind == "BOOL":
        return text == "true"
    if kind == "BYTEBUF":
        return text.encode()
    if kind == "IPADDR":
        return ipaddress.ip_address(text)
    if kind == "IPNET":
        return ipaddress.ip_network(text, strict=False)
    return text if kind == "CHARBUF" else int(text, 0)


def type_of(operand: Operand, table: FieldTable) -> tuple[str, str]:
    if isinstance(operand, Field):
        reference = table.find(operand.name, operand.argument)
        flags = (
            reference.info.flags.replace("Y", "") if operand.argument is not None else reference.info.flags
        )
        return reference.info.type, flags
    assert isinstance(operand, Call)
    return ("UINT64", "") if operand.name == "len" else ("CHARBUF", "")


def value_of(operand: Any, event: Event, table: FieldTable) -> Any:
    if isinstance(operand, Text):
        return operand.value
    if isinstance(operand, Field):
        return event.get(table.find(operand.name, operand.argument).key)
    if not isinstance(operand, Call):
        parts = [value_of(item, event, table) for item in operand.items]
        return None if None in parts else tuple(parts)
    values = [value_of(part, event, table) for part in operand.arguments]
    if any(value is None for value in values):
        return None
    return apply(operand.name, values)


def apply(name: str, values: list[Any]) -> Any:
    value = values[0]
    if name == "val":
        return value
    if name == "len":
        return len(value.encode()) if isinstance(value, str) else len(value)
    if name == "concat":
        return "".join(values)
    if name == "join":
        return value.join(values[1])
    if isinstance(value, tuple):
        parts = [apply(name, [part]) for part in value]
        return None if None in parts else tuple(parts)
    if name == "b64":
        try:
            return base64.b64decode(value + "=" * (-len(value) % 4), validate=True).decode(
                "utf-8", "surrogateescape"
            )
        except ValueError:
            return None
    return {"tolower": lower, "toupper": upper, "basename": lambda text: text.split("/")[-1]}[name](value)
