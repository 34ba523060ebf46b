"""One relabelling rule (surface 6.4)."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Self

import re2
from pydantic import Field, field_validator, model_validator

from ingest.config.section import Section, Text, fault
from ingest.validate import LEGACY, UTF8, is_label_name, is_utf8

DEFAULT_REGEX = "(.*)"
DEFAULT_SEPARATOR = ";"
DEFAULT_REPLACEMENT = "$1"

_LEGACY_TEMPLATE = re.compile(r"(?:(?:[a-zA-Z_]|\$(?:\{\w+\}|\w+))+\w*)+")


class RelabelAction(StrEnum):
    """What a rule does with the label set."""

    REPLACE = "replace"
    KEEP = "keep"
    DROP = "drop"
    KEEPEQUAL = "keepequal"
    DROPEQUAL = "dropequal"
    HASHMOD = "hashmod"
    LABELMAP = "labelmap"
    LABELDROP = "labeldrop"
    LABELKEEP = "labelkeep"
    LOWERCASE = "lowercase"
    UPPERCASE = "uppercase"


_NEEDS_TARGET = {
    *(RelabelAction.REPLACE, RelabelAction.HASHMOD, RelabelAction.LOWERCASE, RelabelAction.UPPERCASE),
    *(RelabelAction.KEEPEQUAL, RelabelAction.DROPEQUAL),
}
_COMPARES = {RelabelAction.KEEPEQUAL, RelabelAction.DROPEQUAL}
_CHANGES_CASE = {RelabelAction.LOWERCASE, RelabelAction.UPPERCASE}


class RelabelConfig(Section):
    """A rule as written; `ingest.relabel` compiles a list of them."""

    always_printed = frozenset({"separator", "regex", "replacement", "action"})

    source_labels: list[Text] = Field(default_factory=list)
    separator: Text = DEFAULT_SEPARATOR
    regex: Text = DEFAULT_REGEX
    modulus: int = Field(default=0, ge=0, lt=1 << 64)
    target_label: Text = ""
    replacement: Text = DEFAULT_REPLACEMENT
    action: RelabelAction = RelabelAction.REPLACE

    @field_validator("action", mode="before")
    @classmethod
    def _known_action(cls, value: object) -> object:
        if value == "":
            raise fault("relabel action cannot be empty")
        if isinstance(value, str):
            if value.lower() not in RelabelAction.__members__.values():
                raise fault(f'unknown relabel action "{value}"')
            return value.lower()
        return value

    @field_validator("regex")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re2.compile(f"^(?s:{value})$", _quiet())
        except re2.error as error:
            reason = error.args[0] if error.args else error
            reason = reason.decode(errors="replace") if isinstance(reason, bytes) else reason
            raise fault(f"error parsing regexp: {reason}: `{value}`") from None
        return value

    @model_validator(mode="after")
    def _fields_fit_the_action(self) -> Self:
        action = self.action
        if action is RelabelAction.HASHMOD and self.modulus == 0:
            raise fault("relabel configuration for hashmod requires non-zero modulus")
        if action in _NEEDS_TARGET and not self.target_label:
            raise fault(f"relabel configuration for {action} action requires 'target_label' value")
        if action in _CHANGES_CASE | _COMPARES and self.replacement != DEFAULT_REPLACEMENT:
            raise fault(f"'replacement' can not be set for {action} action", "replacement")
        if action in _COMPARES and (
            "regex" in self.model_fields_set or self.modulus or self.separator != DEFAULT_SEPARATOR
        ):
            raise fault(
                f"{action} action requires only 'source_labels' and `target_label`, and no other fields"
            )
        if action in (RelabelAction.LABELDROP, RelabelAction.LABELKEEP) and (
            self.source_labels
            or self.target_label
            or self.modulus
            or self.separator != DEFAULT_SEPARATOR
            or self.replacement != DEFAULT_REPLACEMENT
        ):
            raise fault(f"{action} action requires only 'regex', and no other fields")
        return self

    def omitted(self) -> frozenset[str]:
        """The default expression, which keepequal and dropequal may not spell out."""
        return frozenset({"regex"}) if self.regex == DEFAULT_REGEX else frozenset()

    def check_names(self, scheme: str) -> str | None:
        """Why the rule's names are invalid under a validation scheme (utf8 or legacy), or None."""
        if self.action in _NEEDS_TARGET:
            templated = self.action is RelabelAction.REPLACE and "$" in self.target_label
            if not _valid(self.target_label, templated, scheme):
                return f"\"{self.target_label}\" is invalid 'target_label' for {self.action} action"
        if self.action is RelabelAction.LABELMAP and not _valid(self.replacement, True, scheme):
            return f"\"{self.replacement}\" is invalid 'replacement' for {self.action} action"
        return None


def _valid(name: str, templated: bool, scheme: str) -> bool:
    if not templated:
        return is_label_name(name, scheme)
    if scheme == LEGACY:
        return _LEGACY_TEMPLATE.fullmatch(name) is not None
    assert scheme == UTF8
    return name != "" and is_utf8(name)


def _quiet() -> re2.Options:
    options = re2.Options()
    options.log_errors = False
    return options
