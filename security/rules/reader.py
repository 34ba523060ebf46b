"""Stage 1: the text of a rules file becomes a stream of items (security-surface.md 1.1, 1.3)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from security.rules.decode import (
    exceptions,
    invalid,
    optional_bool,
    optional_number,
    optional_text,
    parse_unsigned,
    required_bool,
    required_number,
    required_text,
    scalars,
)
from security.rules.document import (
    RULES_FILE_BYTES_LIMIT,
    DocumentError,
    Mapping,
    Node,
    Scalar,
    Sequence,
    read_documents,
)
from security.rules.items import (
    SYSCALL_SOURCE,
    EngineVersion,
    Item,
    ListItem,
    MacroItem,
    PluginVersion,
    RuleItem,
    RuleToggle,
    RuleUpdate,
    Version,
    parse_priority,
    parse_version,
)
from security.rules.loadresult import Context, LoadResult, RuleLoadError

IDENTIFIER = "([a-zA-Z]+[a-zA-Z0-9_]*)"
BARE_STRING = "([^()\"'[:space:]=,]+)"
_IDENTIFIER = re.compile(r"[a-zA-Z]+[a-zA-Z0-9_]*")
_BARE_STRING = re.compile(r"[^()\"'\s=,]+")

APPEND_DEPRECATED = (
    "'append' key is deprecated. Add an 'append' entry (e.g. 'condition: append') under 'override' instead."
)
ENABLED_DEPRECATED = (
    "The standalone 'enabled' key usage is deprecated. The correct approach requires also a 'replace' entry "
    "under the 'override' key (i.e. 'enabled: replace')."
)
OVERRIDE_WITH_APPEND = (
    "Keys 'override' and 'append: true' cannot be used together. Add an 'append' entry (e.g. 'condition: "
    "append') under 'override' instead."
)

_RULE_APPENDABLE = ("condition", "output", "desc", "tags", "exceptions")
_RULE_REPLACEABLE = (
    *("condition", "output", "desc", "priority", "capture", "capture_duration", "tags", "exceptions"),
    *("enabled", "warn_evttypes", "skip-if-unknown-filter"),
)
_KNOWN_KEYS = {
    "required_engine_version": {"required_engine_version"},
    "required_plugin_versions": {"required_plugin_versions"},
    "list": {"list", "items", "append", "override"},
    "macro": {"macro", "condition", "append", "override"},
    "rule": {"rule", "source", "append", "override", *_RULE_APPENDABLE, *_RULE_REPLACEABLE},
}


def read_items(name: str, text: str, result: LoadResult) -> Iterator[Item]:
    """The items of a file in order. Warnings go to `result`; the first error raises RuleLoadError."""
    context = Context.of_file(name)
    if len(text) > RULES_FILE_BYTES_LIMIT:
        message = f"rules file of {len(text)} characters is longer than {RULES_FILE_BYTES_LIMIT}"
        raise RuleLoadError("LOAD_ERR_FILE_READ", message, context)
    try:
        documents = read_documents(text)
    except DocumentError as error:
        place = context.child("value for", error.position)
        raise RuleLoadError("LOAD_ERR_YAML_PARSE", error.message, place) from None
    for document in documents:
        if isinstance(document, Scalar):
            if document.is_null:
                continue
            raise invalid("Rules content is not yaml", context)
        if not isinstance(document, Sequence):
            raise invalid("Rules content is not yaml array of objects", context)
        for node in document.items:
            if not (isinstance(node, Scalar) and node.is_null):
                yield from _read_item(node, context, result)


def _read_item(node: Node, context: Context, result: LoadResult) -> Iterator[Item]:
    if not isinstance(node, Mapping):
        message = "Unexpected element type. Each element should be a yaml associative array."
        raise invalid(message, context.child("rules content item", node.position))
    kind = next((kind for kind in _KNOWN_KEYS if node.get(kind) is not None), None)
    if kind is None:
        place = context.child("rules content item", node.position)
        result.add_warning("LOAD_UNKNOWN_ITEM", "Unknown top level item", place)
        return
    if kind == "required_engine_version":
        yield _read_engine_version(node, context)
    elif kind == "required_plugin_versions":
        yield from _read_plugin_versions(node, context)
    else:
        name = required_text(node, kind, context.child(kind, node.position))
        place = context.child(kind, node.position, name)
        _warn_unknown_keys(node, kind, place, result)
        if kind == "list":
            yield _read_list(node, name, place, result)
        elif kind == "macro":
            yield _read_macro(node, name, place, result)
        else:
            yield from _read_rule(node, name, place, result)


def _warn_unknown_keys(node: Mapping, kind: str, context: Context, result: LoadResult) -> None:
    for key, key_node in node.names():
        if key not in _KNOWN_KEYS[kind]:
            place = context.child("value for", key_node.position, key)
            result.add_warning("LOAD_UNKNOWN_KEY", f"Unknown key '{key}' in {kind} definition", place)


def _read_engine_version(node: Mapping, context: Context) -> EngineVersion:
    place = context.child("required_engine_version", node.position)
    text = required_text(node, "required_engine_version", place)
    number = parse_unsigned(text)
    version = Version(0, number, 0) if number is not None else parse_version(text)
    if version is None:
        message = (
            f"Unable to parse engine version '{text}' as a semver string. Expected \"x.y.z\" semver format."
        )
        raise invalid(message, place)
    return EngineVersion(version, place)


def _read_plugin_versions(node: Mapping, context: Context) -> Iterator[PluginVersion]:
    value = node.get("required_plugin_versions")
    assert value is not None
    place = context.child("required plugin versions", value.position)
    if not isinstance(value, Sequence):
        raise invalid("Value of required_plugin_versions must be a sequence", place)
    for entry in value.items:
        entry_place = place.child("required plugin versions entry", entry.position)
        if not isinstance(entry, Mapping):
            raise invalid("Plugin version must be a mapping", entry_place)
        name = required_text(entry, "name", entry_place)
        entry_place = place.child("required plugin versions entry", entry.position, name)
        found = [(name, required_text(entry, "version", entry_place))]
        others = entry.get("alternatives")
        if others is not None:
            if not isinstance(others, Sequence):
                raise invalid("Value of plugin version alternatives must be a sequence", entry_place)
            for other in others.items:
                other_place = entry_place.child("required plugin versions alternative", other.position)
                if not isinstance(other, Mapping):
                    raise invalid("Plugin version alternative must be a mapping", other_place)
                found.append(
                    (required_text(other, "name", other_place), required_text(other, "version", other_place))
                )
        yield PluginVersion(found, entry_place)


def _read_append(node: Mapping, context: Context, result: LoadResult) -> bool:
    append = optional_bool(node, "append", context, False)
    if append:
        result.add_warning("LOAD_DEPRECATED_ITEM", APPEND_DEPRECATED, context)
    return append


def _read_list(node: Mapping, name: str, place: Context, result: LoadResult) -> ListItem:
    if not _BARE_STRING.fullmatch(name):
        message = f"List has an invalid name. List names should match a regular expression: {BARE_STRING}"
        result.add_warning("LOAD_INVALID_LIST_NAME", message, place)
    items = scalars(node, "items", place)
    append = _read_append(node, place, result)
    appended, replaced = _read_overrides(node, ("items",), ("items",), place)
    if append and (appended or replaced):
        raise invalid(OVERRIDE_WITH_APPEND, place)
    return ListItem(name, items, place, append or bool(appended))


def _read_macro(node: Mapping, name: str, place: Context, result: LoadResult) -> MacroItem:
    if not _IDENTIFIER.fullmatch(name):
        message = f"Macro has an invalid name. Macro names should match a regular expression: {IDENTIFIER}"
        result.add_warning("LOAD_INVALID_MACRO_NAME", message, place)
    condition = required_text(node, "condition", place)
    append = _read_append(node, place, result)
    appended, replaced = _read_overrides(node, ("condition",), ("condition",), place)
    if append and (appended or replaced):
        raise invalid(OVERRIDE_WITH_APPEND, place)
    condition_place = _place_of(node, "condition", "macro condition", place)
    return MacroItem(name, condition, place, condition_place, append or bool(appended))


def _place_of(node: Mapping, key: str, item_type: str, context: Context) -> Context:
    value = node.get(key)
    assert value is not None
    return context.child(item_type, value.position)


def _read_overrides(
    node: Mapping, appendable: tuple[str, ...], replaceable: tuple[str, ...], context: Context
) -> tuple[list[str], list[str]]:
    value = node.get("override")
    appended: list[str] = []
    replaced: list[str] = []
    if value is None:
        return appended, replaced
    place = context.child("overrides", node.position)
    if not isinstance(value, Mapping):
        if isinstance(value, Scalar) and value.is_null:
            return appended, replaced
        raise invalid("Value of override must be a mapping", place)
    for key_node, operation_node in value.entries:
        key = key_node.value if isinstance(key_node, Scalar) else ""
        operation = operation_node.value if isinstance(operation_node, Scalar) else ""
        key_place = place.child("overrides", key_node.position, key)
        if operation == "append":
            if key not in appendable:
                raise invalid(f"Key '{key}' cannot be appended to, use 'replace' instead", key_place)
            appended.append(key)
        elif operation == "replace":
            if key not in replaceable:
                raise invalid(f"Key '{key}' cannot be replaced", key_place)
            replaced.append(key)
        else:
            allowed = "append " * (key in appendable) + "replace " * (key in replaceable)
            message = (
                f"Invalid override operation for key '{key}': '{operation}'. Allowed values are: {allowed}"
            )
            raise invalid(message, place.child("value for", operation_node.position, key))
    return appended, replaced


def _read_rule(node: Mapping, name: str, place: Context, result: LoadResult) -> Iterator[Item]:
    append = _read_append(node, place, result)
    appended, replaced = _read_overrides(node, _RULE_APPENDABLE, _RULE_REPLACEABLE, place)
    if append and (appended or replaced):
        raise invalid(OVERRIDE_WITH_APPEND, place)
    if appended or replaced:
        yield from _read_rule_overrides(node, name, place, appended, replaced, result)
    elif append:
        update = RuleUpdate(name, False, place)
        if node.get("condition") is not None:
            update.condition = required_text(node, "condition", place)
        if node.get("exceptions") is not None:
            update.exceptions = exceptions(node, place, True, result)
        update.source = optional_text(node, "source", place, "") or None
        yield update
    elif all(node.get(key) is None for key in ("condition", "output", "desc", "priority")):
        enabled = required_bool(node, "enabled", place)
        result.add_warning("LOAD_DEPRECATED_ITEM", ENABLED_DEPRECATED, place)
        yield RuleToggle(name, enabled, place)
    else:
        yield _read_new_rule(node, name, place, result)


def _read_rule_overrides(
    node: Mapping,
    name: str,
    place: Context,
    appended: list[str],
    replaced: list[str],
    result: LoadResult,
) -> Iterator[RuleUpdate]:
    present = {*_RULE_APPENDABLE, *_RULE_REPLACEABLE}
    expected = {key for key in present if node.get(key) is not None}
    for replace, keys in ((False, appended), (True, replaced)):
        if not keys:
            continue
        update = RuleUpdate(name, replace, place)
        for key in keys:
            if key not in expected:
                word = "replace" if replace else "append"
                message = f"An {word} override for '{key}' was specified but '{key}' is not defined"
                raise invalid(message, place)
            expected.discard(key)
            _read_part(update, node, key, place, result)
        yield update
    for key in sorted(expected):
        value = node.get(key)
        assert value is not None
        message = f"Unexpected key '{key}': no corresponding entry under 'override' is defined."
        raise invalid(message, place.child("overrides", value.position, key))


def _read_part(update: RuleUpdate, node: Mapping, key: str, place: Context, result: LoadResult) -> None:
    if key == "condition":
        update.condition = required_text(node, key, place)
    elif key == "output":
        update.output = required_text(node, key, place)
    elif key == "desc":
        update.description = required_text(node, key, place)
    elif key == "exceptions":
        update.exceptions = exceptions(node, place, not update.replace, result)
    elif key == "tags":
        update.tags = set(scalars(node, key, place))
    elif key == "priority":
        update.priority = _read_priority(node, place)
    elif key == "enabled":
        update.enabled = required_bool(node, key, place)
    elif key == "capture":
        update.capture = required_bool(node, key, place)
    elif key == "capture_duration":
        update.capture_duration = required_number(node, key, place)
    elif key == "warn_evttypes":
        update.warn_event_types = required_bool(node, key, place)
    else:
        update.skip_if_unknown_filter = required_bool(node, key, place)


def _read_priority(node: Mapping, place: Context) -> int:
    priority = parse_priority(required_text(node, "priority", place))
    if priority is None:
        raise invalid("Invalid priority", _place_of(node, "priority", "rule priority", place))
    return priority


def _read_new_rule(node: Mapping, name: str, place: Context, result: LoadResult) -> RuleItem:
    condition = required_text(node, "condition", place)
    output = required_text(node, "output", place)
    description = required_text(node, "desc", place)
    return RuleItem(
        name=name,
        condition=condition,
        output=output.strip(),
        description=description,
        priority=_read_priority(node, place),
        context=place,
        condition_context=_place_of(node, "condition", "rule condition", place),
        output_context=_place_of(node, "output", "rule output", place),
        source=optional_text(node, "source", place, SYSCALL_SOURCE),
        enabled=optional_bool(node, "enabled", place, True),
        capture=optional_bool(node, "capture", place, False),
        capture_duration=optional_number(node, "capture_duration", place, 0),
        warn_event_types=optional_bool(node, "warn_evttypes", place, True),
        skip_if_unknown_filter=optional_bool(node, "skip-if-unknown-filter", place, False),
        tags=set(scalars(node, "tags", place)) if node.get("tags") is not None else set(),
        exceptions=exceptions(node, place, False, result),
    )
