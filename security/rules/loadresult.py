"""What loading a rules file gave: every error and warning with its code, message and place.

Codes, messages, the chain of places and the three renderings (summary, verbose text, JSON) are Falco's
(security-surface.md 1.5), because tools parse them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SNIPPET_WIDTH = 160
CONDITION_NAME_WIDTH = 20

ERROR_TEXTS = {
    "LOAD_ERR_FILE_READ": "File read error",
    "LOAD_ERR_YAML_PARSE": "YAML parse error",
    "LOAD_ERR_YAML_VALIDATE": "Error validating internal structure of YAML file",
    "LOAD_ERR_COMPILE_CONDITION": "Error compiling condition",
    "LOAD_ERR_COMPILE_OUTPUT": "Error compiling output",
    "LOAD_ERR_VALIDATE": "Error validating rule/macro/list/exception objects",
    "LOAD_ERR_EXTENSION": "Error in extension item",
}
WARNING_TEXTS = {
    "LOAD_UNKNOWN_SOURCE": "Unknown event source",
    "LOAD_UNSAFE_NA_CHECK": "Unsafe <NA> comparison in condition",
    "LOAD_NO_EVTTYPE": "Condition has no event-type restriction",
    "LOAD_UNKNOWN_FILTER": "Unknown field or event-type in condition or output",
    "LOAD_UNUSED_MACRO": "Unused macro",
    "LOAD_UNUSED_LIST": "Unused list",
    "LOAD_UNKNOWN_ITEM": "Unknown rules file item",
    "LOAD_DEPRECATED_ITEM": "Used deprecated item",
    "LOAD_WARNING_EXTENSION": "Warning in extension item",
    "LOAD_APPEND_NO_VALUES": "Overriding/appending with no values",
    "LOAD_EXCEPTION_NAME_NOT_UNIQUE": "Multiple exceptions defined with the same name",
    "LOAD_INVALID_MACRO_NAME": "Invalid macro name",
    "LOAD_INVALID_LIST_NAME": "Invalid list name",
    "LOAD_COMPILE_CONDITION": "Warning in rule condition",
    "LOAD_UNKNOWN_KEY": "Unknown key in item definition",
}


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a text: `offset` in characters, `line` and `column` counted from 0."""

    offset: int = 0
    line: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True)
class Location:
    """One link of the chain from the file to the faulty value."""

    name: str
    position: Position
    item_type: str
    item_name: str = ""


@dataclass(frozen=True, slots=True)
class Context:
    """The chain of locations of an item. `text` is the condition a position points into, if not the file."""

    locations: tuple[Location, ...]
    text: str | None = None
    text_offset: int = 0

    @classmethod
    def of_file(cls, name: str) -> Context:
        """The context of a whole file."""
        return cls((Location(name, Position(), "rules content"),))

    def child(self, item_type: str, position: Position, item_name: str = "") -> Context:
        """The context of a part of this item."""
        name = self.locations[0].name
        return Context((*self.locations, Location(name, position, item_type, item_name)))

    def in_condition(self, condition: str, offset: int) -> Context:
        """The context of a character of a condition whose own text begins at this context."""
        shown = condition if len(condition) <= CONDITION_NAME_WIDTH else condition[: CONDITION_NAME_WIDTH - 3]
        tail = '"' if shown == condition else '..."'
        name = f'"{shown}{tail}'.replace("\n", " ").replace("\r", " ")
        before = condition[:offset].replace("\r", "\n")
        base = self.locations[-1].position
        position = Position(
            base.offset + offset,
            base.line + before.count("\n") + 1,
            base.column + offset - (before.rfind("\n") + 1) + 1,
        )
        location = Location(name, position, "condition expression")
        return Context((*self.locations, location), condition, offset)

    def render(self) -> str:
        """The chain as indented lines."""
        lines = []
        for index, link in enumerate(self.locations):
            name = f" '{link.item_name}'" if link.item_name else ""
            place = f"({link.name}:{link.position.line}:{link.position.column})"
            lines.append(f"{'In ' if index == 0 else '    '}{link.item_type}{name}: {place}\n")
        return "".join(lines)

    def snippet(self, contents: dict[str, str]) -> str:
        """The line of the place with a caret below it, cut to SNIPPET_WIDTH characters."""
        location = self.locations[-1]
        text = self.text if self.text else contents.get(location.name)
        if text is None:
            return f"<No context for file + {location.name}>\n"
        if not text:
            return "<No context available>\n"
        return _snippet(text, self.text_offset if self.text else location.position.offset)

    def as_json(self, contents: dict[str, str]) -> dict[str, Any]:
        """Falco's JSON object of a context."""
        return {
            "locations": [
                {
                    "item_name": link.item_name,
                    "item_type": link.item_type,
                    "position": {
                        "column": link.position.column,
                        "line": link.position.line,
                        "name": link.name,
                        "offset": link.position.offset,
                    },
                }
                for link in self.locations
            ],
            "snippet": self.snippet(contents),
        }


def _snippet(text: str, offset: int) -> str:
    half = SNIPPET_WIDTH // 2
    at = min(offset, len(text) - 1)
    while at > 0 and text[at] == "\n":
        at -= 1
    start = max(text.rfind("\n", 0, at) + 1, at - half, 0)
    newline = text.find("\n", at)
    end = min(len(text) if newline < 0 else newline, at + half)
    line = text[start:end]
    if not line:
        return "<No context available>\n"
    if at - start >= half:
        line = "..." + line[3:]
    if end - at >= half:
        line = line[:-3] + "..."
    return f"{line}\n{' ' * (at - start)}^\n"


@dataclass(frozen=True, slots=True)
class Finding:
    """An error or a warning."""

    code: str
    message: str
    context: Context

    def render(self, texts: dict[str, str], contents: dict[str, str]) -> str:
        """The block of the verbose text."""
        return (
            f"{self.context.render()}------\n{self.context.snippet(contents)}------\n"
            f"{self.code} ({texts[self.code]}): {self.message}\n"
        )

    def line(self) -> str:
        """One line for a log: file, line counted from 1, item, message."""
        inside = [link for link in self.context.locations if link.item_type != "condition expression"]
        named = [f"{link.item_type} '{link.item_name}'" for link in inside if link.item_name][-1:]
        place = f"{inside[-1].name}:{inside[-1].position.line + 1}"
        return ": ".join([place, *named, " ".join(self.message.split())])

    def as_json(self, texts: dict[str, str], contents: dict[str, str]) -> dict[str, Any]:
        """Falco's JSON object of an error or warning."""
        return {
            "code": self.code,
            "codedesc": texts[self.code],
            "context": self.context.as_json(contents),
            "message": self.message,
        }


class RuleLoadError(Exception):
    """Stops the stage at work on a file; the loader turns it into an error of the result."""

    def __init__(self, code: str, message: str, context: Context) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.context = context


@dataclass(slots=True)
class LoadResult:
    """The outcome for one file."""

    name: str
    errors: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)

    @property
    def successful(self) -> bool:
        """Whether there is no error."""
        return not self.errors

    def add_error(self, error: RuleLoadError) -> None:
        """Keep an error."""
        self.errors.append(Finding(error.code, error.message, error.context))

    def add_warning(self, code: str, message: str, context: Context) -> None:
        """Keep a warning."""
        self.warnings.append(Finding(code, message, context))

    def _state(self) -> str:
        if not self.successful:
            return "Invalid"
        return "Ok, with warnings" if self.warnings else "Ok"

    def summary(self) -> str:
        """The short text: state, then the counted codes."""
        lines = [f"{self.name}: {self._state()}" if self.name else self._state()]
        for word, findings, texts in (
            ("errors", self.errors, ERROR_TEXTS),
            ("warnings", self.warnings, WARNING_TEXTS),
        ):
            if findings:
                codes = " ".join(f"{f.code} ({texts[f.code]})" for f in findings)
                lines.append(f" {len(findings)} {word}: [{codes}]")
        return "\n".join(lines)

    def verbose(self, contents: dict[str, str]) -> str:
        """The long text, with the place of every finding; `contents` maps file names to their text."""
        text = f"{self.name}: {self._state()}" if self.name else self._state()
        for word, findings, texts in (
            ("Errors", self.errors, ERROR_TEXTS),
            ("Warnings", self.warnings, WARNING_TEXTS),
        ):
            if findings:
                text += f"\n{len(findings)} {word}:\n"
                text += "".join(finding.render(texts, contents) for finding in findings)
        return text

    def as_json(self, contents: dict[str, str]) -> dict[str, Any]:
        """Falco's JSON object of a result."""
        return {
            "errors": [finding.as_json(ERROR_TEXTS, contents) for finding in self.errors],
            "name": self.name,
            "successful": self.successful,
            "warnings": [finding.as_json(WARNING_TEXTS, contents) for finding in self.warnings],
        }
