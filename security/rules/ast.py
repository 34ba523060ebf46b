"""The tree of a condition. Nodes are immutable and carry the offset of their text for error messages.

A macro is a shared subtree: resolving gives a graph, not copies, so that a chain of macros that doubles at
each step stays small. Passes over the tree memoize by identity.
"""

from __future__ import annotations

from dataclasses import dataclass, field

BINARY_NUMBER_OPERATORS = ("<=", "<", ">=", ">")
STRING_OPERATORS = (
    *("==", "=", "!=", "glob", "iglob", "contains", "icontains"),
    *("bcontains", "startswith", "bstartswith", "endswith", "regex"),
)
LIST_OPERATORS = ("intersects", "in", "pmatch")
OPERATORS = ("exists", *BINARY_NUMBER_OPERATORS, *STRING_OPERATORS, *LIST_OPERATORS)
MODIFIERS = ("oneof", "anyof", "allof")
TRANSFORMERS = ("tolower", "toupper", "b64", "basename", "len", "join", "concat", "getopt")


@dataclass(frozen=True, slots=True)
class Field:
    """A field with its argument in brackets, None when there is none."""

    name: str
    argument: str | None = None
    offset: int = field(default=0, compare=False)

    def text(self) -> str:
        """As written in a condition."""
        if self.argument is None:
            return self.name
        plain = self.argument and not any(char in "[]\"'" or char.isspace() for char in self.argument)
        return f"{self.name}[{self.argument if plain else _in_quotes(self.argument)}]"


@dataclass(frozen=True, slots=True)
class Text:
    """A quoted string or a number as an argument of a transformer."""

    value: str
    offset: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Tuple:
    """A literal list as an argument of a transformer."""

    items: tuple[Operand, ...]
    offset: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Call:
    """A transformer over its arguments; `val` only stands on the right of an operator."""

    name: str
    arguments: tuple[Operand, ...]
    argument: str | None = None
    offset: int = field(default=0, compare=False)


Operand = Field | Text | Tuple | Call


@dataclass(frozen=True, slots=True)
class Exists:
    """`operand exists`."""

    left: Field | Call
    offset: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Compare:
    """`operand operator values`. Lists have many values, all others one; or `right` is a field or a call."""

    left: Field | Call
    operator: str
    values: tuple[str, ...] = ()
    right: Field | Call | None = None
    modifier: str | None = None
    offset: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Macro:
    """A name that stands alone as a check."""

    name: str
    offset: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True, eq=False)
class Not:
    """Negation."""

    child: Node
    offset: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class And:
    """All children hold; left to right."""

    children: tuple[Node, ...]
    offset: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Or:
    """Some child holds; left to right."""

    children: tuple[Node, ...]
    offset: int = 0


Check = Exists | Compare
Node = Exists | Compare | Macro | Not | And | Or


def children_of(node: Node) -> tuple[Node, ...]:
    """The direct children of a node."""
    if isinstance(node, (And, Or)):
        return node.children
    return (node.child,) if isinstance(node, Not) else ()


def reachable(root: Node) -> list[Node]:
    """Every node under a root once, parents before children, in order of the text."""
    seen: set[int] = set()
    order: list[Node] = []
    stack: list[Node] = [root]
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        order.append(node)
        stack.extend(reversed(children_of(node)))
    return order


def children_first(root: Node) -> list[Node]:
    """Every node under a root once, children before parents."""
    order: list[Node] = []
    seen: set[int] = set()
    stack: list[tuple[Node, bool]] = [(root, False)]
    while stack:
        node, finished = stack.pop()
        if finished:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((child, False) for child in reversed(children_of(node)))
    return order


def depth(root: Node) -> int:
    """Levels of the tree."""
    levels: dict[int, int] = {}
    for node in children_first(root):
        levels[id(node)] = 1 + max((levels[id(child)] for child in children_of(node)), default=0)
    return levels[id(root)]


def render(node: Node) -> str:
    """The condition as text, with all macros and lists in place; used by `describe`."""
    parts: list[str] = []
    stack: list[Node | str] = [node]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            parts.append(item)
        elif isinstance(item, (And, Or)):
            word = " and " if isinstance(item, And) else " or "
            pieces: list[Node | str] = ["("]
            for index, child in enumerate(item.children):
                pieces += [word, child] if index else [child]
            stack.extend(reversed([*pieces, ")"]))
        elif isinstance(item, Not):
            stack.extend([item.child, "not "])
        elif isinstance(item, Macro):
            parts.append(item.name)
        else:
            parts.append(_render_check(item))
    return "".join(parts)


def _render_check(check: Check) -> str:
    left = render_operand(check.left)
    if isinstance(check, Exists):
        return f"{left} exists"
    if check.right is not None:
        right = render_operand(check.right)
    elif check.operator in LIST_OPERATORS or check.modifier:
        right = f"({', '.join(_quoted(value) for value in check.values)})"
    else:
        right = _quoted(check.values[0])
    modifier = f" {check.modifier}" if check.modifier else ""
    return f"{left} {check.operator}{modifier} {right}"


def render_operand(operand: Operand) -> str:
    """A field, literal or call as text."""
    if isinstance(operand, Field):
        return operand.text()
    if isinstance(operand, Text):
        return _in_quotes(operand.value)
    if isinstance(operand, Tuple):
        return f"({', '.join(render_operand(item) for item in operand.items)})"
    tail = f"[{operand.argument}]" if operand.argument is not None else ""
    return f"{operand.name}({', '.join(render_operand(item) for item in operand.arguments)}){tail}"


_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", "\f": "\\f"}


def _quoted(value: str) -> str:
    if value and not any(char in " ()\"'=,\t\n\r\b\f\v\\" for char in value):
        return value
    return _in_quotes(value)


def _in_quotes(value: str) -> str:
    return '"' + "".join(_ESCAPES.get(char, char) for char in value) + '"'
