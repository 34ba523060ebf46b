"""Stage 3: conditions become trees. Lists are text put in before parsing, macros are subtrees put in after
(security-surface.md 1.2, 1.4)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from security.rules.ast import And, Macro, Node, Not, Or, children_first, depth
from security.rules.collector import is_list_comparison
from security.rules.condition import CONDITION_CHARS_LIMIT, DEPTH_LIMIT, ConditionError, parse_condition
from security.rules.items import Entry, ListItem, MacroItem, RuleItem
from security.rules.loadresult import Context, RuleLoadError

MACRO_DEPTH_LIMIT = 200
LIST_ITEMS_LIMIT = 1 << 20
TREE_DEPTH_LIMIT = 300
_BLANKS = " \t\n\r"
_DELIMITERS = _BLANKS + "(),="


@dataclass(slots=True)
class ResolvedList:
    """A list whose items may not name lists any more."""

    name: str
    items: list[str]
    used: bool = False


@dataclass(slots=True)
class ResolvedMacro:
    """A macro as a tree without macros."""

    name: str
    tree: Node
    index: int
    used: bool = False


@dataclass(slots=True)
class ParseCache:
    """Trees by text: after each file everything is resolved again, but few texts change."""

    trees: dict[str, Node] = field(default_factory=dict)

    def parse(self, text: str) -> Node:
        """The tree of a text. Raises ConditionError."""
        tree = self.trees.get(text)
        if tree is None:
            tree = self.trees[text] = parse_condition(text)
        return tree


def quote_item(text: str) -> str:
    """A list item or exception value as it is put into a condition."""
    return f'"{text}"' if " " in text and text[0] not in "\"'" else text


def resolve_lists(lists: Mapping[str, ListItem]) -> dict[str, ResolvedList]:
    """Lists with the items of the lists they name, one level deep and only of earlier lists.

    Raises RuleLoadError for more than LIST_ITEMS_LIMIT items in all.
    """
    total = 0
    resolved: dict[str, ResolvedList] = {}
    used: list[str] = []
    for item in lists.values():
        items: list[str] = []
        for text in item.items:
            reference = lists.get(text)
            if reference is not None and reference.index < item.visibility:
                used.append(reference.name)
                items.extend(reference.items)
            else:
                items.append(text)
            if total + len(items) > LIST_ITEMS_LIMIT:
                message = f"lists have more than {LIST_ITEMS_LIMIT} items"
                raise RuleLoadError("LOAD_ERR_VALIDATE", message, item.context)
        total += len(items)
        resolved[item.name] = ResolvedList(item.name, items)
    for name in used:
        resolved[name].used = True
    return resolved


def substitute_lists(condition: str, lists: Iterable[ResolvedList], context: Context) -> str:
    """The condition with the items of every list in place of its name. Marks the lists as used."""
    for entry in lists:
        if entry.name in condition:
            condition, used = _substitute(condition, entry)
            entry.used = entry.used or used
            if len(condition) > CONDITION_CHARS_LIMIT:
                message = f"condition of {len(condition)} characters is longer than {CONDITION_CHARS_LIMIT}"
                raise RuleLoadError("LOAD_ERR_COMPILE_CONDITION", message, context)
    return condition


def _substitute(condition: str, entry: ResolvedList) -> tuple[str, bool]:
    text = ", ".join(quote_item(item) for item in entry.items)
    parts: list[str] = []
    copied = 0
    size = len(condition)
    at = condition.find(entry.name)
    # What is too long already is refused by the caller; the rest of the names need not be replaced.
    while at >= 0 and size <= CONDITION_CHARS_LIMIT:
        end = at + len(entry.name)
        left_free = at == 0 or condition[at - 1] in _DELIMITERS
        if left_free and (end >= len(condition) or condition[end] in _DELIMITERS):
            before = condition[copied:at].rstrip(_BLANKS)
            while end < len(condition) and condition[end] in _BLANKS:
                end += 1
            if not text:
                # An empty list takes one comma with it.
                if before.endswith(","):
                    before = before[:-1]
                elif condition[end : end + 1] == ",":
                    end += 1
            parts.append(f"{before} {text} " if before or parts else f"{text} ")
            copied = end
            size += len(text)
            at = condition.find(entry.name, end)
        else:
            at = condition.find(entry.name, at + 1)
    parts.append(condition[copied:])
    return "".join(parts), len(parts) > 1


def parse_with_lists(
    condition: str, lists: Iterable[ResolvedList], cache: ParseCache, context: Context
) -> tuple[Node, str]:
    """The tree of a condition and its text after substitution. Raises RuleLoadError with the place."""
    text = substitute_lists(condition, lists, context)
    try:
        return cache.parse(text), text
    except ConditionError as error:
        place = context.in_condition(text, error.offset)
        raise RuleLoadError("LOAD_ERR_COMPILE_CONDITION", error.message, place) from None


def resolve_macros(
    macros: Mapping[str, MacroItem], lists: Mapping[str, ResolvedList], cache: ParseCache
) -> dict[str, ResolvedMacro]:
    """All macros as trees, each seeing only macros defined before its own last change."""
    resolved: dict[str, ResolvedMacro] = {}
    for item in macros.values():
        tree, _ = parse_with_lists(item.condition, lists.values(), cache, item.condition_context)
        resolved[item.name] = ResolvedMacro(item.name, tree, item.index)
    for item in macros.values():
        entry = resolved[item.name]
        entry.tree = expand_macros(entry.tree, resolved, item.visibility, item.condition, item.context)
    return resolved


def expand_macros(
    tree: Node, macros: Mapping[str, ResolvedMacro], visibility: int | None, text: str, context: Context
) -> Node:
    """The tree with macros in place. `visibility` hides macros defined later; None shows all.

    Marks the macros as used. Raises RuleLoadError for a macro nobody defined and for a loop.
    """
    expanded = _Expansion(macros, visibility, text, context).run(tree)
    if depth(expanded) > TREE_DEPTH_LIMIT:
        place = context.in_condition(text, 0)
        message = f"exceeded max depth limit of {DEPTH_LIMIT}"
        raise RuleLoadError("LOAD_ERR_COMPILE_CONDITION", message, place)
    return expanded


class _Expansion:
    def __init__(
        self, macros: Mapping[str, ResolvedMacro], visibility: int | None, text: str, context: Context
    ) -> None:
        self.macros = macros
        self.visibility = visibility
        self.text = text
        self.context = context
        self.path: list[str] = []
        self.done: dict[str, Node] = {}

    def run(self, tree: Node) -> Node:
        built: dict[int, Node] = {}
        for node in children_first(tree):
            if isinstance(node, Macro):
                built[id(node)] = self._macro(node)
            elif isinstance(node, Not):
                child = built[id(node.child)]
                built[id(node)] = node if child is node.child else Not(child, node.offset)
            elif isinstance(node, (And, Or)):
                children = tuple(built[id(child)] for child in node.children)
                same = all(new is old for new, old in zip(children, node.children, strict=True))
                built[id(node)] = node if same else type(node)(children, node.offset)
            else:
                built[id(node)] = node
        return built[id(tree)]

    def _macro(self, node: Macro) -> Node:
        entry = self.macros.get(node.name)
        if entry is None or (self.visibility is not None and entry.index >= self.visibility):
            raise self._error(f"Undefined macro '{node.name}' used in filter.", node)
        if node.name in self.path:
            raise self._error(f"reference loop in macro '{node.name}'", node)
        if len(self.path) >= MACRO_DEPTH_LIMIT:
            raise self._error(f"macros are nested more than {MACRO_DEPTH_LIMIT} deep", node)
        known = self.done.get(node.name)
        if known is None:
            self.path.append(node.name)
            known = self.done[node.name] = self.run(entry.tree)
            self.path.pop()
        entry.used = True
        return known

    def _error(self, message: str, node: Macro) -> RuleLoadError:
        place = self.context.in_condition(self.text, min(node.offset, len(self.text)))
        return RuleLoadError("LOAD_ERR_VALIDATE", message, place)


def condition_with_exceptions(rule: RuleItem) -> tuple[str, set[str]]:
    """The text of a rule's condition with its exceptions, and the fields they name."""
    if not rule.exceptions:
        return rule.condition, set()
    fields: set[str] = set()
    parts = [f"({rule.condition})"]
    for exception in rule.exceptions:
        if isinstance(exception.fields, list):
            text = _multi(
                exception.fields, exception.comparisons, exception.values, fields, exception.context
            )
        else:
            text = _single(
                exception.fields, exception.comparisons, exception.values, fields, exception.context
            )
        if text:
            parts.append(f" and not {text}")
    return "".join(parts), fields


def _single(
    name: Entry | None, comparison: Entry | None, values: list[Entry], fields: set[str], context: Context
) -> str:
    texts = []
    for value in values:
        if not isinstance(value, str):
            message = "Expected values array to contain a list of strings"
            raise RuleLoadError("LOAD_ERR_VALIDATE", message, context)
        texts.append(quote_item(value))
    if not texts:
        return ""
    fields.add(str(name))
    return f"({name} {str(comparison).strip()} ({', '.join(texts)}))"


def _multi(
    names: list[Entry], comparisons: Entry | None, values: list[Entry], fields: set[str], context: Context
) -> str:
    assert isinstance(comparisons, list)
    rows = []
    for row in values:
        if not isinstance(row, list) or len(row) != len(names):
            message = "Fields and values lists must have equal length"
            raise RuleLoadError("LOAD_ERR_VALIDATE", message, context)
        checks = []
        for name, comparison, value in zip(names, comparisons, row, strict=True):
            operator = str(comparison).strip()
            if isinstance(value, list):
                text = f"({', '.join(quote_item(str(part)) for part in value)})"
            elif is_list_comparison(operator):
                text = value if value.startswith("(") else f"({value})"
            else:
                text = quote_item(value)
            fields.add(str(name))
            checks.append(f"{name} {operator} {text}")
        rows.append(f"({' and '.join(checks)})")
    return f"({' or '.join(rows)})" if rows else ""


_UNSAFE_OPERATORS = frozenset(("==", "=", "!=", "in", "intersects", "pmatch"))
_UNSAFE_FIELD = re.compile(r"ka\.|jevt\.")


def is_unsafe_na(name: str, operator: str, values: tuple[str, ...]) -> bool:
    """Whether a check compares a field that never has this value with `<NA>`."""
    return bool(_UNSAFE_FIELD.match(name)) and operator in _UNSAFE_OPERATORS and "<NA>" in values
