"""Stage 4: collected items become a rule set, with every error and warning of the compiler."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from security.fields.table import FieldTable, field_table
from security.output import Template, TemplateError, parse_template
from security.rules.ast import TRANSFORMERS, Call, Compare, Exists, Field, Node, Operand, reachable
from security.rules.collector import Collector
from security.rules.eventtypes import event_types, matches_too_many
from security.rules.index import CompiledRule, RuleSet
from security.rules.items import SYSCALL_SOURCE, RuleItem
from security.rules.loadresult import Context, LoadResult, RuleLoadError
from security.rules.program import CompileError, Program
from security.rules.resolver import (
    ParseCache,
    ResolvedList,
    ResolvedMacro,
    condition_with_exceptions,
    expand_macros,
    is_unsafe_na,
    parse_with_lists,
    resolve_lists,
    resolve_macros,
)

CONTAINER_INFO = "%container.info"
_CONTAINER_INFO_DEPRECATED = (
    "%container.info is deprecated and no more useful, and will be dropped by Falco 1.0.0. The container "
    "plugin will automatically add required fields to the output message."
)
_UNSAFE_NA = (
    "comparing a field value with <NA> is unsafe and can lead to unpredictable behavior of the rule "
    "condition. If you need to check for the existence of a field, consider using the 'exists' operator "
    "instead."
)
_TOO_MANY_TYPES = "Rule matches too many evt.type values. This has a significant performance penalty."
_DEPRECATED_FIELDS = (
    *("evt.dir", "evt.latency", "evt.latency.s", "evt.latency.ns", "evt.latency.human", "evt.wait_latency"),
)
_UNKNOWN_WORDS = ("nonexistent field", "invalid formatting token", "unknown event type", "unknown filter:")


@dataclass(frozen=True, slots=True)
class ExtraOutput:
    """An `append_output` entry: text and JSON fields for rules of a source, name and set of tags."""

    text: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    rule: str = ""
    tags: frozenset[str] = frozenset()

    def applies(self, rule: RuleItem) -> bool:
        """Whether the rule is meant."""
        return self.source in ("", rule.source) and self.rule in ("", rule.name) and self.tags <= rule.tags


SUGGESTED_OUTPUT = ExtraOutput(
    text="container_id=%container.id container_name=%container.name", source=SYSCALL_SOURCE
)
"""What Falco's container plugin suggests for every rule on system calls (`suggested_output`)."""


@dataclass(slots=True)
class Compiled:
    """What compiling gave."""

    rules: RuleSet
    lists: dict[str, ResolvedList]
    macros: dict[str, ResolvedMacro]


def compile_rules(
    collector: Collector, result: LoadResult, cache: ParseCache, extra: Iterable[ExtraOutput] = ()
) -> Compiled:
    """Compile everything collected. Warnings go to `result`; the first error raises RuleLoadError."""
    lists = resolve_lists(collector.lists)
    macros = resolve_macros(collector.macros, lists, cache)
    compiler = _RuleCompiler(lists, macros, result, cache, list(extra))
    rules = [compiler.compile(rule) for rule in collector.rules.values() if not rule.unknown_source]
    for macro in macros.values():
        if not macro.used:
            message = "Macro not referred to by any other rule/macro"
            result.add_warning("LOAD_UNUSED_MACRO", message, collector.macros[macro.name].context)
    for entry in lists.values():
        if not entry.used:
            message = "List not referred to by any other rule/macro"
            result.add_warning("LOAD_UNUSED_LIST", message, collector.lists[entry.name].context)
    kept = tuple(rule for rule in rules if rule is not None)
    return Compiled(RuleSet(kept, compiler.programs), lists, macros)


class _RuleCompiler:
    def __init__(
        self,
        lists: dict[str, ResolvedList],
        macros: dict[str, ResolvedMacro],
        result: LoadResult,
        cache: ParseCache,
        extra: list[ExtraOutput],
    ) -> None:
        self.lists = lists
        self.macros = macros
        self.result = result
        self.cache = cache
        self.extra = extra
        self.programs: dict[str, Program] = {}

    def compile(self, rule: RuleItem) -> CompiledRule | None:
        """The compiled rule, or None when it is skipped for an unknown field."""
        condition, exception_fields = condition_with_exceptions(rule)
        program = self.programs.setdefault(rule.source, Program(field_table(rule.source)))
        output = self._output(rule)
        try:
            template = parse_template(program, output)
            extra_fields = self._extra_fields(program, rule)
        except TemplateError as error:
            if self._skips(rule, str(error)):
                self.result.add_warning("LOAD_UNKNOWN_FILTER", str(error), rule.output_context)
                return None
            raise RuleLoadError("LOAD_ERR_COMPILE_OUTPUT", str(error), rule.output_context) from None
        self._warn_deprecated_output(output, rule.output_context)
        tree, text = parse_with_lists(condition, self.lists.values(), self.cache, rule.condition_context)
        tree = expand_macros(tree, self.macros, None, text, rule.context)
        self._warn_condition(tree, text, rule.condition_context, program.table)
        try:
            node = program.add(tree)
        except CompileError as error:
            place = rule.condition_context.in_condition(text, min(error.offset, len(text)))
            if self._skips(rule, error.message):
                self.result.add_warning("LOAD_UNKNOWN_FILTER", error.message, place)
                return None
            raise RuleLoadError("LOAD_ERR_COMPILE_CONDITION", error.message, place) from None
        types = event_types(tree) if rule.source == SYSCALL_SOURCE else None
        if rule.source == SYSCALL_SOURCE and rule.warn_event_types and matches_too_many(types):
            self.result.add_warning("LOAD_NO_EVTTYPE", _TOO_MANY_TYPES, rule.context)
        return _compiled_rule(
            rule, output, template, extra_fields, tree, text, node, types, frozenset(exception_fields)
        )

    def _skips(self, rule: RuleItem, message: str) -> bool:
        return rule.skip_if_unknown_filter and any(word in message for word in _UNKNOWN_WORDS)

    def _output(self, rule: RuleItem) -> str:
        output = rule.output
        for entry in self.extra:
            if entry.text and entry.applies(rule):
                output = f"{output} {entry.text}"
        if CONTAINER_INFO in output:
            self.result.add_warning("LOAD_DEPRECATED_ITEM", _CONTAINER_INFO_DEPRECATED, rule.context)
            output = output.replace(CONTAINER_INFO, "")
        return output

    def _extra_fields(self, program: Program, rule: RuleItem) -> dict[str, Template]:
        return {
            name: parse_template(program, text)
            for entry in self.extra
            if entry.applies(rule)
            for name, text in entry.fields.items()
        }

    def _warn_deprecated_output(self, output: str, context: Context) -> None:
        for name in _DEPRECATED_FIELDS:
            if name in output:
                message = f"usage of deprecated field '{name}' has been detected in the rule output"
                self.result.add_warning("LOAD_DEPRECATED_ITEM", message, context)

    def _warn_condition(self, tree: Node, text: str, context: Context, table: FieldTable) -> None:
        found: dict[tuple[str, str], int] = {}
        for node in reachable(tree):
            if not isinstance(node, (Exists, Compare)):
                continue
            name = node.left.name
            if name in _DEPRECATED_FIELDS:
                message = f"usage of deprecated field '{name}' has been detected in the rule condition"
                found.setdefault(("LOAD_DEPRECATED_ITEM", message), node.offset)
            if isinstance(node, Compare):
                if is_unsafe_na(name, node.operator, node.values):
                    found.setdefault(("LOAD_UNSAFE_NA_CHECK", _UNSAFE_NA), node.offset)
                for message in _hints(node, table):
                    found.setdefault(("LOAD_COMPILE_CONDITION", message), node.offset)
        for (code, message), offset in found.items():
            place = (
                context.in_condition(text, min(offset, len(text))) if code.endswith("CONDITION") else context
            )
            self.result.add_warning(code, message, place)


def _hints(check: Compare, table: FieldTable) -> Iterable[str]:
    for value in check.values:
        if "." in value and value.isascii() and table.defines(value.strip()):
            yield f"'{value}' may be a valid field misused as a const string value"
        name = value.partition("(")[0]
        if value.endswith(")") and name in ("val", *TRANSFORMERS):
            yield f"'{value}' may be a valid field transformer misused as a const string value"
    if check.operator == "regex" and check.values and not set(check.values[0]) & set(".^$*+?()[{\\|"):
        yield f"'{check.values[0]}' is a regex without special characters: consider using the '=' operator"


def _compiled_rule(
    rule: RuleItem,
    output: str,
    template: Template,
    extra_fields: dict[str, Template],
    tree: Node,
    text: str,
    node: int,
    types: frozenset[str] | None,
    exception_fields: frozenset[str],
) -> CompiledRule:
    return CompiledRule(
        name=rule.name,
        source=rule.source,
        description=rule.description,
        priority=rule.priority,
        tags=frozenset(rule.tags),
        output=output,
        template=template,
        condition=tree,
        condition_text=text,
        node=node,
        event_types=types,
        enabled=rule.enabled,
        capture=rule.capture,
        capture_duration_ms=rule.capture_duration,
        exception_fields=exception_fields,
        extra_fields=extra_fields,
    )


def fields_of(tree: Node) -> set[str]:
    """Names of all fields a condition uses, without arguments."""
    names: set[str] = set()

    def visit(operand: Operand) -> None:
        if isinstance(operand, Field):
            names.add(operand.name)
        elif isinstance(operand, Call):
            for part in operand.arguments:
                visit(part)

    for node in reachable(tree):
        if isinstance(node, (Exists, Compare)):
            visit(node.left)
            if isinstance(node, Compare) and node.right is not None:
                visit(node.right)
    return names
