"""Rules of one event source as one program: a table of distinct nodes that all rules share.

Equal conditions of different rules become the same node, so that the engine evaluates each once a batch.
Alternatives over one field (`fd.name startswith /a or fd.name startswith /b`) become one predicate.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from security.fields.table import FieldError, FieldReference, FieldTable
from security.rules.ast import And, Call, Compare, Exists, Field, Node, Not, Operand, Or, Text, children_first
from security.rules.operators import OperatorError, Test, check_operator, make_test
from security.rules.transformers import Transformer, transformer
from security.rules.values import InvalidValueError, Value, parse_value

TEXT_TYPES = frozenset(("CHARBUF", "FSPATH"))
_MERGED = {
    **dict.fromkeys(("=", "==", "in", "intersects"), "in"),
    **{name: name for name in ("startswith", "endswith", "contains", "icontains", "glob", "pmatch")},
}


class CompileError(Exception):
    """A condition cannot be compiled; `offset` is the place of the check in its text."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset


@dataclass(frozen=True, slots=True)
class CompiledOperand:
    """A field, or a transformer over operands. `key` is equal for equal operands."""

    key: Hashable
    type: str
    is_list: bool
    any_of: bool = False
    both_ends: bool = False
    field: FieldReference | None = None
    function: Transformer | None = None
    arguments: tuple[CompiledOperand | Value | tuple[Any, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Predicate:
    """A check. `quantifier` says how many of the values must pass: any, all, or `exists` for no test."""

    operand: CompiledOperand
    operator: str
    quantifier: str
    values: tuple[Value, ...] = ()
    test: Test | None = None
    right: CompiledOperand | None = None
    compare: Callable[[Any, Any], bool] | None = None


CHECK, NOT, AND, OR, TRUE, FALSE = range(6)
NodeKey = tuple[int, tuple[int, ...]]


@dataclass(slots=True)
class Program:
    """The nodes of one event source. Children have smaller numbers than their parents."""

    table: FieldTable
    nodes: list[NodeKey] = field(default_factory=list)
    predicates: list[Predicate] = field(default_factory=list)
    _nodes_by_key: dict[NodeKey, int] = field(default_factory=dict)
    _predicates_by_key: dict[Hashable, int] = field(default_factory=dict)
    _special: dict[tuple[int, str], int] = field(default_factory=dict)

    def add(self, root: Node) -> int:
        """The number of a condition's node. Raises CompileError."""
        built: dict[int, int] = {}
        for node in children_first(root):
            if isinstance(node, Not):
                built[id(node)] = self.negation(built[id(node.child)])
            elif isinstance(node, And):
                built[id(node)] = self.junction(AND, [built[id(child)] for child in node.children])
            elif isinstance(node, Or):
                built[id(node)] = self._alternatives(node, built)
            elif isinstance(node, (Exists, Compare)):
                built[id(node)] = self._check(node)
            else:
                message = f"filter error: unexpected identifier '{node.name}'"
                raise CompileError(message, node.offset)
        return built[id(root)]

    def _node(self, key: NodeKey) -> int:
        number = self._nodes_by_key.get(key)
        if number is None:
            number = self._nodes_by_key[key] = len(self.nodes)
            self.nodes.append(key)
        return number

    def negation(self, child: int) -> int:
        """The number of the negation of a node."""
        kind, children = self.nodes[child]
        if kind in (TRUE, FALSE):
            return self._node((FALSE if kind == TRUE else TRUE, ()))
        return children[0] if kind == NOT else self._node((NOT, (child,)))

    def junction(self, kind: int, children: Sequence[int]) -> int:
        """The number of an AND or OR of nodes; constants are folded."""
        neutral, absorbing = (TRUE, FALSE) if kind == AND else (FALSE, TRUE)
        kept: dict[int, None] = {}
        for child in children:
            child_kind, grandchildren = self.nodes[child]
            if child_kind == absorbing:
                return self._node((absorbing, ()))
            if child_kind == kind:
                kept.update(dict.fromkeys(grandchildren))
            elif child_kind != neutral:
                kept[child] = None
        if not kept:
            return self._node((neutral, ()))
        return next(iter(kept)) if len(kept) == 1 else self._node((kind, tuple(kept)))

    def _alternatives(self, node: Or, built: dict[int, int]) -> int:
        children: list[int] = []
        groups: dict[Hashable, tuple[CompiledOperand, str, list[Value]]] = {}
        slots: dict[Hashable, int] = {}
        for child in node.children:
            number = built[id(child)]
            predicate = self._mergeable(number)
            if predicate is None:
                children.append(number)
                continue
            operator = _MERGED[predicate.operator]
            key = (predicate.operand.key, operator)
            if key not in groups:
                groups[key] = (predicate.operand, operator, [])
                slots[key] = len(children)
                children.append(number)
            groups[key][2].extend(predicate.values)
        for slot, (operand, operator, values) in groups.items():
            test = make_test(operand.type, operator, tuple(values))
            merged = Predicate(operand, operator, "any", tuple(dict.fromkeys(values)), test)
            children[slots[slot]] = self._predicate(merged)
        return self.junction(OR, children)

    def _mergeable(self, number: int) -> Predicate | None:
        kind, children = self.nodes[number]
        if kind != CHECK:
            return None
        predicate = self.predicates[children[0]]
        if predicate.right is not None or predicate.quantifier != "any":
            return None
        return predicate if predicate.operator in _MERGED else None

    def _predicate(self, predicate: Predicate) -> int:
        right = None if predicate.right is None else predicate.right.key
        typed = tuple((type(value), value) for value in predicate.values)
        key = (predicate.operand.key, predicate.operator, predicate.quantifier, typed, right)
        number = self._predicates_by_key.get(key)
        if number is None:
            number = self._predicates_by_key[key] = len(self.predicates)
            self.predicates.append(predicate)
        return self._node((CHECK, (number,)))

    def operand(self, operand: Operand) -> CompiledOperand:
        """A field or transformer with its type. Raises CompileError."""
        if isinstance(operand, Field):
            return self._field(operand)
        if not isinstance(operand, Call):
            raise CompileError("expected a field or a nested valid transformer", operand.offset)
        return _compile_call(self, operand)

    def _field(self, operand: Field) -> CompiledOperand:
        try:
            reference = self.table.find(operand.name, operand.argument)
        except FieldError as error:
            raise CompileError(str(error), operand.offset) from None
        info = reference.info
        both_ends = "E" in info.flags
        return CompiledOperand(
            reference.key, info.type, reference.is_list, reference.any_of, both_ends, reference
        )

    def _check(self, check: Exists | Compare) -> int:
        left = self.operand(check.left)
        if isinstance(check, Exists):
            return self._predicate(Predicate(left, "exists", "exists"))
        try:
            check_operator(left.type, left.is_list, check.operator, check.modifier)
            if check.right is not None:
                return self._predicate(_comparison(left, self.operand(check.right), check))
            name = left.field.info.name if left.field is not None else ""
            values = tuple(parse_value(left.type, text, name, check.operator) for text in check.values)
            return self._predicate(_literal_predicate(left, check, values))
        except (OperatorError, InvalidValueError) as error:
            raise CompileError(str(error), check.offset) from None

    def specialized(self, number: int, event_type: str) -> int:
        """The same condition for events of one type, with the checks of `evt.type` folded away."""
        order: list[int] = []
        stack = [number]
        while stack:
            at = stack.pop()
            if (at, event_type) in self._special:
                continue
            kind, children = self.nodes[at]
            if kind in (NOT, AND, OR):
                missing = [child for child in children if (child, event_type) not in self._special]
                if missing:
                    stack.extend([at, *missing])
                    continue
            order.append(at)
            self._special[(at, event_type)] = self._specialize(at, event_type)
        return self._special[(number, event_type)]

    def _specialize(self, number: int, event_type: str) -> int:
        kind, children = self.nodes[number]
        if kind == NOT:
            return self.negation(self._special[(children[0], event_type)])
        if kind in (AND, OR):
            return self.junction(kind, [self._special[(child, event_type)] for child in children])
        if kind == CHECK:
            predicate = self.predicates[children[0]]
            constant = {("evt.type", None): event_type, ("evt.dir", None): "<"}.get(predicate.operand.key)  # type: ignore[call-overload]
            if constant is not None and predicate.right is None:
                holds = predicate.test is None or predicate.test(constant)
                return self._node((TRUE if holds else FALSE, ()))
        return number


def _literal_predicate(left: CompiledOperand, check: Compare, values: tuple[Value, ...]) -> Predicate:
    operator = check.operator
    if check.modifier is not None:
        test = _modified(left.type, operator, check.modifier, values)
        return Predicate(left, f"{operator} {check.modifier}", "any", values, test)
    test = make_test(left.type, operator, values)
    every = (left.is_list and operator == "in") or (left.both_ends and operator == "!=")
    return Predicate(left, operator, "all" if every else "any", values, test)


def _modified(kind: str, operator: str, modifier: str, values: tuple[Value, ...]) -> Test:
    tests = [make_test(kind, operator, (value,)) for value in values]
    if modifier == "anyof":
        return lambda value: any(test(value) for test in tests)
    if modifier == "allof":
        return lambda value: bool(tests) and all(test(value) for test in tests)
    return lambda value: sum(test(value) for test in tests) == 1


def _comparison(left: CompiledOperand, right: CompiledOperand, check: Compare) -> Predicate:
    for side in (left, right):
        if side.field is not None and not side.field.info.accepts_transformers:
            name = side.field.info.name
            raise OperatorError(f"field '{name}' does not support field-to-field comparison")
    if check.operator in ("pmatch", "regex"):
        raise OperatorError(f"'{check.operator}' operator not supported for field-to-field comparison")
    same = left.type == right.type or {left.type, right.type} <= TEXT_TYPES
    set_like = check.operator in ("in", "intersects")
    if not same or (left.is_list != right.is_list and not set_like):
        message = f"left and right hand side types are not compatible: {left.type} and {right.type}"
        raise OperatorError(message)
    kind, operator = left.type, check.operator
    quantifier = "all" if left.is_list and operator == "in" else "any"

    def compare(value: Any, other: Any) -> bool:
        others = other if isinstance(other, tuple) else (other,)
        return make_test(kind, operator, others)(value)

    return Predicate(left, operator, quantifier, right=right, compare=compare)


def _compile_call(program: Program, call: Call) -> CompiledOperand:
    arguments: list[Any] = []
    for part in call.arguments:
        if isinstance(part, Text):
            arguments.append(part.value)
        elif isinstance(part, (Field, Call)):
            arguments.append(program.operand(part))
        else:
            items = [item.value if isinstance(item, Text) else program.operand(item) for item in part.items]
            arguments.append(tuple(items))
    kind, is_list = _call_type(call, arguments)
    function = transformer(call.name, call.argument)
    if call.name == "val":
        inner: CompiledOperand = arguments[0]
        return inner
    key = (call.name, call.argument, tuple(_argument_key(part) for part in arguments))
    return CompiledOperand(key, kind, is_list, function=function, arguments=tuple(arguments))


def _argument_key(part: Any) -> Hashable:
    if isinstance(part, CompiledOperand):
        return ("operand", part.key)
    if isinstance(part, tuple):
        return tuple(_argument_key(item) for item in part)
    return ("text", part)


_ARITY = {"concat": (2, 64), "join": (2, 2), "getopt": (2, 2)}


def _call_type(call: Call, arguments: list[Any]) -> tuple[str, bool]:
    low, high = _ARITY.get(call.name, (1, 1))
    if not low <= len(arguments) <= high:
        raise CompileError(f"transformer '{call.name}' got {len(arguments)} arguments", call.offset)
    flat = [
        part for argument in arguments for part in (argument if isinstance(argument, tuple) else (argument,))
    ]
    for part in flat:
        if not isinstance(part, CompiledOperand) or part.field is None or call.name == "val":
            continue
        if not part.field.info.accepts_transformers:
            name = part.field.info.name
            raise CompileError(f"field '{name}' does not support field transformers", call.offset)
    first = arguments[0]
    kind = first.type if isinstance(first, CompiledOperand) else "CHARBUF"
    is_list = first.is_list if isinstance(first, CompiledOperand) else isinstance(first, tuple)
    textual = kind in TEXT_TYPES
    if call.name == "val":
        return kind, is_list
    if call.name == "len" and (is_list or textual or kind == "BYTEBUF"):
        return "UINT64", False
    if call.name in ("tolower", "toupper", "basename") and textual:
        return kind, is_list
    if call.name == "b64" and (textual or kind == "BYTEBUF"):
        return kind, is_list
    if call.name == "concat" and all(_is_text(part, False) for part in arguments):
        return "CHARBUF", False
    if call.name == "join" and _is_text(first, False) and _is_text(arguments[1], True):
        return "CHARBUF", False
    if call.name == "getopt" and _is_text(first, True) and isinstance(arguments[1], str):
        return "CHARBUF", call.argument is None
    raise CompileError(f"transformer '{call.name}' does not support these arguments", call.offset)


def _is_text(part: Any, is_list: bool) -> bool:
    if isinstance(part, tuple):
        return is_list and all(_is_text(item, False) for item in part)
    if isinstance(part, CompiledOperand):
        return part.type in TEXT_TYPES and part.is_list == is_list
    return isinstance(part, str) and not is_list
