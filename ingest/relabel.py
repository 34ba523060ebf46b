"""Relabelling: rules compiled once per configuration and applied to label sets (surface 6.4)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import re2

from ingest.config.relabeling import DEFAULT_REGEX, RelabelAction, RelabelConfig
from ingest.validate import UTF8, is_label_name
from tsdb.labels import Labels

_REFERENCE = re.compile(r"\$(?:\$|(\w+)|\{(\w+)\})")
_GROUP_NUMBER_LIMIT = 100_000_000

LabelDict = dict[str, str]
_Rule = Callable[[LabelDict], bool]


class _Template:
    """A replacement with `$1`, `${1}` and `${name}`; an unknown group is empty, `$$` is a dollar."""

    def __init__(self, text: str, expression: re2._Regexp) -> None:
        self.parts: list[str | int] = []
        at = 0
        for match in _REFERENCE.finditer(text):
            self.parts.append(text[at : match.start()])
            at = match.end()
            name = match.group(1) or match.group(2)
            if name is None:
                self.parts.append("$")
                continue
            group = _group_number(name, expression)
            if group is not None:
                self.parts.append(group)
        self.parts.append(text[at:])
        self.parts = [part for part in self.parts if part != ""]
        self.literal = "".join(str(p) for p in self.parts) if not any(map(_is_int, self.parts)) else None

    def expand(self, match: re2._Match) -> str:
        if self.literal is not None:
            return self.literal
        return "".join(part if isinstance(part, str) else match.group(part) or "" for part in self.parts)


def _is_int(part: str | int) -> bool:
    return isinstance(part, int)


def _group_number(name: str, expression: re2._Regexp) -> int | None:
    if name.isascii() and name.isdigit():
        number = int(name) if len(name) < 9 else _GROUP_NUMBER_LIMIT
        return number if number <= expression.groups else None
    number = expression.groupindex.get(name)
    return None if number is None else int(number)


def _put(labels: LabelDict, name: str, value: str) -> None:
    if value:
        labels[name] = value
    else:
        labels.pop(name, None)


@dataclass(frozen=True, slots=True)
class RelabelStep:
    """State after one rule, for the page that explains relabelling."""

    rule: RelabelConfig
    output: LabelDict
    keep: bool


class Relabeler:
    """A list of compiled rules. Immutable; any thread may use it."""

    __slots__ = ("_rules", "configs")

    def __init__(self, configs: Sequence[RelabelConfig], scheme: str = UTF8) -> None:
        """`scheme` is the validation scheme of label names that `replace` produces."""
        self.configs = tuple(configs)
        self._rules = tuple(_compile(config, scheme) for config in configs)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def apply(self, labels: LabelDict) -> bool:
        """Change `labels` in place; False when a rule drops the label set. Empty values are removed."""
        return all(rule(labels) for rule in self._rules)

    def process(self, labels: Labels) -> Labels | None:
        """The relabelled set, None where it is dropped."""
        if not self._rules:
            return labels
        changed = labels.to_dict()
        return Labels.from_dict(changed) if self.apply(changed) else None

    def steps(self, labels: LabelDict) -> Iterator[RelabelStep]:
        """The label set after each rule, up to the one that drops it."""
        current = dict(labels)
        for config, rule in zip(self.configs, self._rules, strict=True):
            keep = rule(current)
            yield RelabelStep(config, dict(current) if keep else {}, keep)
            if not keep:
                return


def _compile(config: RelabelConfig, scheme: str) -> _Rule:
    expression = re2.compile(f"(?s:{config.regex})")
    if config.action is RelabelAction.REPLACE:
        return _replace(config, expression, scheme)
    if config.action in (RelabelAction.LABELMAP, RelabelAction.LABELDROP, RelabelAction.LABELKEEP):
        return _by_name(config, expression)
    return _by_value(config, expression)


def _source(config: RelabelConfig) -> Callable[[LabelDict], str]:
    names, separator = tuple(config.source_labels), config.separator
    if len(names) == 1:
        only = names[0]
        return lambda labels: labels.get(only, "")
    return lambda labels: separator.join(labels.get(name, "") for name in names)


def _replace(config: RelabelConfig, expression: re2._Regexp, scheme: str) -> _Rule:
    source = _source(config)
    target, replacement = (_Template(text, expression) for text in (config.target_label, config.replacement))
    plain = config.regex == DEFAULT_REGEX and "$" not in config.target_label + config.replacement

    def rule(labels: LabelDict) -> bool:
        value = source(labels)
        if plain and not value:
            _put(labels, config.target_label, config.replacement)
            return True
        match = expression.fullmatch(value)
        if match is None:
            return True
        name = target.expand(match)
        if is_label_name(name, scheme):
            _put(labels, name, replacement.expand(match))
        return True

    return rule


def _by_name(config: RelabelConfig, expression: re2._Regexp) -> _Rule:
    replacement = _Template(config.replacement, expression)

    def labelmap(labels: LabelDict) -> bool:
        for name, value in list(labels.items()):
            match = expression.fullmatch(name)
            if match is not None:
                _put(labels, replacement.expand(match), value)
        return True

    def labeldrop(labels: LabelDict) -> bool:
        for name in [name for name in labels if expression.fullmatch(name) is not None]:
            del labels[name]
        return True

    def labelkeep(labels: LabelDict) -> bool:
        for name in [name for name in labels if expression.fullmatch(name) is None]:
            del labels[name]
        return True

    return {
        RelabelAction.LABELMAP: labelmap,
        RelabelAction.LABELDROP: labeldrop,
        RelabelAction.LABELKEEP: labelkeep,
    }[config.action]


def _by_value(config: RelabelConfig, expression: re2._Regexp) -> _Rule:
    source, target, action = _source(config), config.target_label, config.action
    if action is RelabelAction.KEEP:
        return lambda labels: expression.fullmatch(source(labels)) is not None
    if action is RelabelAction.DROP:
        return lambda labels: expression.fullmatch(source(labels)) is None
    if action is RelabelAction.KEEPEQUAL:
        return lambda labels: labels.get(target, "") == source(labels)
    if action is RelabelAction.DROPEQUAL:
        return lambda labels: labels.get(target, "") != source(labels)
    change = {
        RelabelAction.HASHMOD: lambda value: str(_hash(value) % config.modulus),
        RelabelAction.LOWERCASE: _lower,
        RelabelAction.UPPERCASE: _upper,
    }[action]

    def rule(labels: LabelDict) -> bool:
        _put(labels, target, change(source(labels)))
        return True

    return rule


def _hash(value: str) -> int:
    """The last 8 bytes of the MD5 sum, big-endian."""
    return int.from_bytes(hashlib.md5(value.encode(), usedforsecurity=False).digest()[8:], "big")


def _lower(value: str) -> str:
    """Letter by letter, as Prometheus does: one letter never becomes two, and position does not matter."""
    return value.lower() if value.isascii() else "".join(c.lower()[0] for c in value)


def _upper(value: str) -> str:
    if value.isascii():
        return value.upper()
    return "".join(up if len(up := c.upper()) == 1 else c for c in value)
