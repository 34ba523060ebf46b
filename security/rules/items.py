"""What a rules file says, item by item: the language between the reader and the collector."""

from __future__ import annotations

from dataclasses import dataclass, field

from security.rules.loadresult import Context

SYSCALL_SOURCE = "syscall"
PRIORITIES = ("Emergency", "Alert", "Critical", "Error", "Warning", "Notice", "Informational", "Debug")
_PRIORITY_NUMBERS = {name.lower(): number for number, name in enumerate(PRIORITIES)} | {"info": 6}


def parse_priority(text: str) -> int | None:
    """The number of a priority (0 is the most severe), or None for an unknown word. Case does not matter."""
    return _PRIORITY_NUMBERS.get(text.lower())


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A semantic version."""

    major: int
    minor: int
    patch: int

    def accepts(self, required: Version) -> bool:
        """Whether something of this version serves what was written for `required`."""
        return self.major == required.major and self >= required

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


def parse_version(text: str) -> Version | None:
    """A version written x.y.z, or None."""
    parts = text.split(".")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        return None
    return Version(*(int(part) for part in parts))


@dataclass(slots=True)
class EngineVersion:
    """`required_engine_version`."""

    version: Version
    context: Context


@dataclass(slots=True)
class PluginVersion:
    """An entry of `required_plugin_versions`: one of these names and versions must be there."""

    alternatives: list[tuple[str, str]]
    context: Context


@dataclass(slots=True)
class ListItem:
    """A list; with `append` its items join those of the list of that name."""

    name: str
    items: list[str]
    context: Context
    append: bool = False
    index: int = 0
    visibility: int = 0


@dataclass(slots=True)
class MacroItem:
    """A macro; with `append` its text joins that of the macro of that name."""

    name: str
    condition: str
    context: Context
    condition_context: Context
    append: bool = False
    index: int = 0
    visibility: int = 0


Entry = str | list["Entry"]


@dataclass(slots=True)
class ExceptionItem:
    """An exception of a rule. `fields` and `comparisons` are a name, a list of names, or None."""

    name: str
    fields: Entry | None
    comparisons: Entry | None
    values: list[Entry]
    context: Context


@dataclass(slots=True)
class RuleItem:
    """A complete rule."""

    name: str
    condition: str
    output: str
    description: str
    priority: int
    context: Context
    condition_context: Context
    output_context: Context
    source: str = SYSCALL_SOURCE
    enabled: bool = True
    capture: bool = False
    capture_duration: int = 0
    warn_event_types: bool = True
    skip_if_unknown_filter: bool = False
    tags: set[str] = field(default_factory=set)
    exceptions: list[ExceptionItem] = field(default_factory=list)
    unknown_source: bool = False
    index: int = 0
    visibility: int = 0


@dataclass(slots=True)
class RuleUpdate:
    """Parts of a known rule to append (`replace` false) or to replace; None leaves a part as it is."""

    name: str
    replace: bool
    context: Context
    condition: str | None = None
    output: str | None = None
    description: str | None = None
    priority: int | None = None
    source: str | None = None
    enabled: bool | None = None
    capture: bool | None = None
    capture_duration: int | None = None
    warn_event_types: bool | None = None
    skip_if_unknown_filter: bool | None = None
    tags: set[str] | None = None
    exceptions: list[ExceptionItem] | None = None

    def has_any_value(self) -> bool:
        """Whether some part is given."""
        parts = (
            *(self.condition, self.output, self.description, self.priority, self.enabled, self.capture),
            *(self.capture_duration, self.warn_event_types, self.skip_if_unknown_filter),
            *(self.tags, self.exceptions),
        )
        return any(part is not None for part in parts)


@dataclass(slots=True)
class RuleToggle:
    """`enabled` alone: switches a known rule."""

    name: str
    enabled: bool
    context: Context


Item = EngineVersion | PluginVersion | ListItem | MacroItem | RuleItem | RuleUpdate | RuleToggle
