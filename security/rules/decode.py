"""Read typed values out of the mappings of a rules file, with Falco's words for wrong shapes."""

from __future__ import annotations

from security.rules.document import Mapping, Node, Scalar, Sequence
from security.rules.items import Entry, ExceptionItem
from security.rules.loadresult import Context, LoadResult, RuleLoadError

_ENTRY_DEPTH_LIMIT = 16
_TRUE = frozenset(("y", "yes", "true", "on"))
_FALSE = frozenset(("n", "no", "false", "off"))


def invalid(message: str, context: Context) -> RuleLoadError:
    """An error of the shape of the file."""
    return RuleLoadError("LOAD_ERR_YAML_VALIDATE", message, context)


def required_scalar(item: Mapping, key: str, context: Context) -> tuple[Scalar, Context]:
    """The non-empty scalar of a key and its context."""
    value = item.get(key)
    if value is None:
        raise invalid(f"Item has no mapping for key '{key}'", context)
    if isinstance(value, Scalar) and value.is_null:
        raise invalid(f"Mapping for key '{key}' is empty", context)
    place = context.child("value for", value.position, key)
    if not isinstance(value, Scalar):
        raise invalid("Value is not a scalar value", place)
    if not value.value:
        raise invalid("Value must be non-empty", place)
    return value, place


def required_text(item: Mapping, key: str, context: Context) -> str:
    """The text of a key that must be there."""
    return required_scalar(item, key, context)[0].value


def optional_text(item: Mapping, key: str, context: Context, default: str) -> str:
    """The text of a key, or the default when the key is absent."""
    return default if item.get(key) is None else required_text(item, key, context)


def required_bool(item: Mapping, key: str, context: Context) -> bool:
    """A boolean in one of YAML 1.1's spellings."""
    scalar, place = required_scalar(item, key, context)
    word = scalar.value
    if word in (word.lower(), word.upper(), word.capitalize()):
        if word.lower() in _TRUE:
            return True
        if word.lower() in _FALSE:
            return False
    raise invalid("Can't decode YAML scalar value", place)


def optional_bool(item: Mapping, key: str, context: Context, default: bool) -> bool:
    """A boolean, or the default when the key is absent."""
    return default if item.get(key) is None else required_bool(item, key, context)


def required_number(item: Mapping, key: str, context: Context) -> int:
    """An unsigned number of 32 bits."""
    scalar, place = required_scalar(item, key, context)
    number = parse_unsigned(scalar.value)
    if number is None:
        raise invalid("Can't decode YAML scalar value", place)
    return number


def optional_number(item: Mapping, key: str, context: Context, default: int) -> int:
    """A number, or the default when the key is absent."""
    return default if item.get(key) is None else required_number(item, key, context)


def parse_unsigned(text: str) -> int | None:
    """An unsigned number of 32 bits, or None."""
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) >= 1 << 32:
        return None
    return int(text)


def scalars(item: Mapping, key: str, context: Context) -> list[str]:
    """The scalars of a sequence under a key that must be there."""
    value = item.get(key)
    if value is None:
        raise invalid(f"Item has no mapping for key '{key}'", context)
    place = context.child("value for", value.position, key)
    if not isinstance(value, Sequence):
        raise invalid("Value is not a sequence", place)
    texts = []
    for node in value.items:
        if not isinstance(node, Scalar):
            raise invalid("sequence value is not scalar", place.child("list item", node.position))
        texts.append(node.value)
    return texts


def _entry(node: Node, context: Context, key: str = "", depth: int = 0) -> Entry | None:
    place = context.child("value for", node.position, key)
    if depth > _ENTRY_DEPTH_LIMIT:
        raise invalid(f"exception values are nested more than {_ENTRY_DEPTH_LIMIT} deep", place)
    if isinstance(node, Scalar):
        if not node.value:
            raise invalid("Value must be non-empty", place)
        return node.value
    if isinstance(node, Sequence):
        entries: list[Entry] = []
        for part in node.items:
            entry = _entry(part, place.child("exception", part.position), depth=depth + 1)
            entries.append("" if entry is None else entry)
        return entries
    return None


def exceptions(item: Mapping, context: Context, append: bool, result: LoadResult) -> list[ExceptionItem]:
    """The `exceptions` of a rule; with `append` fields may be absent and absent values give a warning."""
    value = item.get("exceptions")
    if value is None or (isinstance(value, Scalar) and value.is_null):
        return []
    all_place = context.child("exceptions", value.position)
    if not isinstance(value, Sequence):
        raise invalid("Rule exceptions must be a sequence", all_place)
    found: list[ExceptionItem] = []
    for node in value.items:
        place = all_place.child("exception", node.position)
        if not isinstance(node, Mapping):
            raise invalid("Rule exception must be a mapping", place)
        exception = _exception(node, required_text(node, "name", place), context, append, result)
        if any(other.name == exception.name for other in found):
            result.add_warning(
                "LOAD_EXCEPTION_NAME_NOT_UNIQUE",
                f"Multiple definitions of exception '{exception.name}' in the same rule",
                exception.context,
            )
        found.append(exception)
    return found


def _exception(node: Mapping, name: str, context: Context, append: bool, result: LoadResult) -> ExceptionItem:
    place = context.child("exception", node.position, name)
    fields, comparisons, values = node.get("fields"), node.get("comps"), node.get("values")
    if fields is None and not append:
        raise invalid("Item has no mapping for key 'fields'", place)
    entries: list[Entry] = []
    if values is not None:
        values_place = place.child("exception values", values.position)
        if not isinstance(values, Sequence):
            raise invalid("Rule exception values must be a sequence", values_place)
        for value in values.items:
            entry = _entry(value, values_place.child("exception value", value.position))
            entries.append("" if entry is None else entry)
    elif append:
        result.add_warning("LOAD_APPEND_NO_VALUES", "Overriding/appending exception with no values", place)
    return ExceptionItem(
        name,
        None if fields is None else _entry(fields, place, "fields"),
        None if comparisons is None else _entry(comparisons, place, "comps"),
        entries,
        place,
    )
