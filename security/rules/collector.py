"""Stage 2: items become the lists, macros and rules that are in force (security-surface.md 1.2, 1.3, 1.4).

One collector lives through all files. A second definition keeps the place of the first (`index`), while the
moment of the last change (`visibility`) decides which macros an item may see.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from security.fields.table import field_table
from security.rules.ast import LIST_OPERATORS, MODIFIERS, OPERATORS
from security.rules.condition import ConditionError, split_field
from security.rules.items import (
    EngineVersion,
    Entry,
    ExceptionItem,
    Item,
    ListItem,
    MacroItem,
    PluginVersion,
    RuleItem,
    RuleToggle,
    RuleUpdate,
    Version,
    parse_version,
)
from security.rules.loadresult import Context, LoadResult, RuleLoadError

ENGINE_VERSION = Version(0, 63, 0)
ITEMS_LIMIT = 1_000_000

_NO_PREVIOUS_MACRO = (
    "Macro uses 'append' or 'override.condition: append' but no macro by that name already exists"
)
_NO_PREVIOUS_RULE = (
    "An 'override.<key>: replace' to a rule was requested but no rule by that name already exists"
)


def _refuse(message: str, context: Context) -> RuleLoadError:
    return RuleLoadError("LOAD_ERR_VALIDATE", message, context)


@dataclass(slots=True)
class Collector:
    """What the files read so far define. One writer."""

    sources: Collection[str]
    lists: dict[str, ListItem] = field(default_factory=dict)
    macros: dict[str, MacroItem] = field(default_factory=dict)
    rules: dict[str, RuleItem] = field(default_factory=dict)
    plugin_versions: list[PluginVersion] = field(default_factory=list)
    engine_version: Version | None = None
    clock: int = 0

    def add(self, item: Item, result: LoadResult) -> None:
        """Apply one item. Raises RuleLoadError."""
        if self.clock >= ITEMS_LIMIT:
            context = item.context
            raise _refuse(f"rules files have more than {ITEMS_LIMIT} items", context)
        if isinstance(item, ListItem):
            self._add_list(item)
        elif isinstance(item, MacroItem):
            self._add_macro(item)
        elif isinstance(item, RuleItem):
            self._add_rule(item, result)
        elif isinstance(item, RuleUpdate):
            self._update_rule(item)
        elif isinstance(item, RuleToggle):
            previous = self.rules.get(item.name)
            if previous is None:
                message = "Rule has 'enabled' key but no rule by that name already exists"
                raise _refuse(message, item.context)
            previous.enabled = item.enabled
        elif isinstance(item, EngineVersion):
            self._add_engine_version(item)
        else:
            self._add_plugin_version(item)

    def _add_engine_version(self, item: EngineVersion) -> None:
        if not ENGINE_VERSION.accepts(item.version):
            message = f"Rules require engine version {item.version}, but engine version is {ENGINE_VERSION}"
            raise _refuse(message, item.context)
        if self.engine_version is None or self.engine_version < item.version:
            self.engine_version = item.version

    def _add_plugin_version(self, item: PluginVersion) -> None:
        seen: set[str] = set()
        for name, version in item.alternatives:
            if parse_version(version) is None:
                raise _refuse(f"Invalid required version '{version}' for plugin '{name}'", item.context)
            if name in seen:
                message = f"Defined multiple alternative version requirements for plugin '{name}'"
                raise _refuse(message, item.context)
            seen.add(name)
        self.plugin_versions.append(item)

    def _tick(self) -> int:
        self.clock += 1
        return self.clock - 1

    def _add_list(self, item: ListItem) -> None:
        previous = self.lists.get(item.name)
        if item.append:
            if previous is None:
                message = (
                    "List uses 'append' or 'override.items: append' but no list by that name already exists"
                )
                raise _refuse(message, item.context)
            previous.items = [*previous.items, *item.items]
            previous.visibility = self._tick()
            return
        now = self._tick()
        item.index = now if previous is None else previous.index
        item.visibility = now
        self.lists[item.name] = item

    def _add_macro(self, item: MacroItem) -> None:
        previous = self.macros.get(item.name)
        if item.append:
            if previous is None:
                message = _NO_PREVIOUS_MACRO
                raise _refuse(message, item.context)
            previous.condition = f"{previous.condition} {item.condition}"
            previous.visibility = self._tick()
            return
        now = self._tick()
        item.index = now if previous is None else previous.index
        item.visibility = now
        self.macros[item.name] = item

    def _add_rule(self, item: RuleItem, result: LoadResult) -> None:
        previous = self.rules.get(item.name)
        if previous is not None and previous.source != item.source:
            raise _refuse("Rule has been re-defined with a different source", item.context)
        if item.source not in self.sources:
            item.unknown_source = True
            message = f"Unknown source {item.source}, skipping"
            result.add_warning("LOAD_UNKNOWN_SOURCE", message, item.context)
        for exception in item.exceptions:
            if not exception.fields:
                message = "Rule exception item must have fields property with a list of fields"
                raise _refuse(message, exception.context)
            _check_exception(exception, None if item.unknown_source else item.source)
        now = self._tick()
        item.index = now if previous is None else previous.index
        item.visibility = now
        self.rules[item.name] = item

    def _update_rule(self, update: RuleUpdate) -> None:
        rule = self.rules.get(update.name)
        if rule is None:
            if update.replace:
                message = _NO_PREVIOUS_RULE
            else:
                message = (
                    "Rule uses 'append' or 'override.<key>: append' but no rule by that name already exists"
                )
            raise _refuse(message, update.context)
        if not update.has_any_value():
            if update.replace:
                message = "The rule must have at least one field that can be replaced"
            else:
                message = "Appended rule must have exceptions or condition property"
            raise _refuse(message, update.context)
        if update.source is not None and update.source != rule.source:
            raise _refuse("Rule has been re-defined with a different source", update.context)
        source = None if rule.unknown_source else rule.source
        if update.replace:
            _replace(rule, update, source)
        else:
            _append(rule, update, source)
        rule.visibility = self._tick()


def _append(rule: RuleItem, update: RuleUpdate, source: str | None) -> None:
    if update.condition:
        rule.condition = f"{rule.condition} {update.condition}"
    if update.output:
        rule.output = f"{rule.output} {update.output}"
    if update.description:
        rule.description = f"{rule.description} {update.description}"
    if update.tags is not None:
        rule.tags = rule.tags | update.tags
    for exception in update.exceptions or ():
        position = next((i for i, e in enumerate(rule.exceptions) if e.name == exception.name), None)
        if position is None:
            if not exception.fields:
                message = "Rule exception must have fields property with a list of fields"
                raise _refuse(message, exception.context)
            if not exception.values:
                message = "Rule exception must have values property with a list of values"
                raise _refuse(message, exception.context)
            _check_exception(exception, source)
            rule.exceptions = [*rule.exceptions, exception]
            continue
        for part, word in ((exception.fields, "fields"), (exception.comparisons, "comps")):
            if part:
                message = f"Can not append exception {word} to existing exception, only values"
                raise _refuse(message, exception.context)
        known = rule.exceptions[position]
        known.values = [*known.values, *exception.values]


def _replace(rule: RuleItem, update: RuleUpdate, source: str | None) -> None:
    for exception in update.exceptions or ():
        if not exception.fields:
            message = "Rule exception item must have fields property with a list of fields"
            raise _refuse(message, exception.context)
        _check_exception(exception, source)
    rule.condition = rule.condition if update.condition is None else update.condition
    rule.output = rule.output if update.output is None else update.output.strip()
    rule.description = rule.description if update.description is None else update.description
    rule.tags = rule.tags if update.tags is None else update.tags
    rule.exceptions = rule.exceptions if update.exceptions is None else update.exceptions
    rule.priority = rule.priority if update.priority is None else update.priority
    rule.enabled = rule.enabled if update.enabled is None else update.enabled
    rule.capture = rule.capture if update.capture is None else update.capture
    if update.capture_duration is not None:
        rule.capture_duration = update.capture_duration
    if update.warn_event_types is not None:
        rule.warn_event_types = update.warn_event_types
    if update.skip_if_unknown_filter is not None:
        rule.skip_if_unknown_filter = update.skip_if_unknown_filter


def is_list_comparison(operator: str) -> bool:
    """Whether an operator of an exception takes a list."""
    word = operator.strip()
    return word in LIST_OPERATORS or word.split()[-1:] in ([modifier] for modifier in MODIFIERS)


def _is_known_comparison(operator: str) -> bool:
    words = operator.split()
    return operator.strip() in OPERATORS or (
        len(words) == 2 and words[0] in OPERATORS and words[1] in MODIFIERS
    )


def _check_exception(exception: ExceptionItem, source: str | None) -> None:
    context = exception.context
    if isinstance(exception.fields, list):
        if not exception.comparisons:
            exception.comparisons = ["="] * len(exception.fields)
        comparisons = exception.comparisons
        if not isinstance(comparisons, list) or len(exception.fields) != len(comparisons):
            raise _refuse("Fields and comps lists must have equal length", context)
        for comparison in comparisons:
            if not isinstance(comparison, str) or not _is_known_comparison(comparison):
                raise _refuse(f"'{comparison}' is not a supported comparison operator", context)
        for name in exception.fields:
            _check_field(name, source, context)
        return
    comparison = exception.comparisons or "in"
    if not isinstance(comparison, str):
        raise _refuse("Fields and comps must both be strings", context)
    if not is_list_comparison(comparison) or not _is_known_comparison(comparison):
        message = "When fields is a single value, comps must be one of (in, pmatch, intersects)"
        raise _refuse(message, context)
    exception.comparisons = comparison
    assert exception.fields is not None
    _check_field(exception.fields, source, context)


def _check_field(entry: Entry, source: str | None, context: Context) -> None:
    if source is None:
        return
    text = entry if isinstance(entry, str) else str(entry)
    # A transformer is allowed on the left of an exception; the compiler checks it later.
    if isinstance(entry, str) and "(" not in text:
        try:
            reference = split_field(text)
        except ConditionError:
            reference = None
        if reference is None or not field_table(source).defines(reference.name, reference.argument):
            raise _refuse(f"'{text}' is not a supported filter field", context)
    elif not isinstance(entry, str):
        raise _refuse(f"'{text}' is not a supported filter field", context)
