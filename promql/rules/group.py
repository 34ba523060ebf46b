"""Groups of rules that are evaluated together, and the moments at which that happens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import xxhash

from promql.parser import STABLE, ParserOptions
from promql.rules.recording import RecordingRule
from promql.rules.rulefile import GroupConfig, RuleConfig, RuleFileError, read_rule_file

_NS_PER_MS = 1_000_000
_SEPARATOR = b"\xff"


@dataclass(frozen=True, slots=True)
class RuleGroup:
    """A group in its file. Recording rules are ready; alerting rules stay as they are written."""

    name: str
    file: str
    interval_ms: int
    query_offset_ms: int
    rules: tuple[RecordingRule | RuleConfig, ...]

    @classmethod
    def of(
        cls,
        config: GroupConfig,
        file: str,
        interval_ms: int,
        query_offset_ms: int = 0,
        options: ParserOptions = STABLE,
    ) -> RuleGroup:
        """Of a checked configuration; interval and offset hold where the group has none of its own."""
        rules = tuple(
            RecordingRule.of(rule, config.labels, options) if rule.record else rule for rule in config.rules
        )
        offset = config.query_offset_ms
        return cls(
            config.name,
            file,
            config.interval_ms or interval_ms,
            query_offset_ms if offset is None else offset,
            rules,
        )

    def offset_ns(self) -> int:
        """How far after a multiple of the interval the group is evaluated: by hash, so that groups spread."""
        pairs = (b"file", self.file.encode(), b"name", self.name.encode())
        digest = xxhash.xxh64_intdigest(b"".join(part + _SEPARATOR for part in pairs))
        return digest % (self.interval_ms * _NS_PER_MS)

    def first_evaluation_ms(self, start_ms: int) -> int:
        """The first evaluation at or after a time, to the nearest millisecond."""
        interval_ns, offset_ns = self.interval_ms * _NS_PER_MS, self.offset_ns()
        intervals = -((offset_ns - start_ms * _NS_PER_MS) // interval_ns)
        return (intervals * interval_ns + offset_ns + _NS_PER_MS // 2) // _NS_PER_MS


def load_groups(
    files: Sequence[Path], interval_ms: int, options: ParserOptions = STABLE
) -> Iterator[RuleGroup]:
    """Groups of rule files in their order. Raises RuleFileError for the first file refused, OSError."""
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise RuleFileError([f"{file}: yaml: {error}"]) from None
        for config in read_rule_file(text, str(file), options=options):
            yield RuleGroup.of(config, str(file), interval_ms, options=options)
