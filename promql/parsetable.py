"""The parse table of the grammar: lark computes it, a file beside the compiled modules keeps it."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import orjson

ERROR = "ERROR"
END = "$END"
STARTS = ("expression", "metric_selector", "metric")


@dataclass(frozen=True, slots=True)
class Rule:
    """One alternative: `size` symbols become one of `symbol`, by the named action ("" passes a single symbol
    on)."""

    symbol: str
    size: int
    action: str


@dataclass(frozen=True, slots=True)
class ParseTable:
    """`shifts` and `gotos` lead to states, `reductions` to rules; `eager` is the only rule of a state that
    has nothing else, `default` the rule taken on a bad token (none where the state explains errors)."""

    shifts: Sequence[Mapping[str, int]]
    gotos: Sequence[Mapping[str, int]]
    reductions: Sequence[Mapping[str, Rule]]
    eager: Sequence[Rule | None]
    default: Sequence[Rule | None]
    start_states: Mapping[str, int]
    end_states: frozenset[int]


@lru_cache(maxsize=1)
def parse_table() -> ParseTable:
    """The table of grammar.lark, from its file or computed (0.2 s) and written there for the next process."""
    folder = resources.files("promql")
    text = folder.joinpath("grammar.lark").read_text(encoding="utf-8")
    path = Path(str(folder)) / "__pycache__" / f"grammar.{_digest(text)}.json"
    try:
        return _decoded(path.read_bytes())
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        # Absent, or cut short by a full disk: it holds nothing that cannot be computed.
        table = build_table(text)
    with contextlib.suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_bytes(_encoded(table))
        temporary.replace(path)
    return table


def _digest(text: str) -> str:
    """Of all that the table is made from: the grammar, the library, this file."""
    parts = (text.encode(), metadata.version("lark").encode(), Path(__file__).read_bytes())
    return hashlib.blake2b(b"\0".join(parts), digest_size=12).hexdigest()


def _encoded(table: ParseTable) -> bytes:
    """The table as JSON, rules by their number."""
    numbers: dict[int, int] = {}
    rules: list[tuple[str, int, str]] = []

    def number(rule: Rule | None) -> int | None:
        if rule is None:
            return None
        if id(rule) not in numbers:
            numbers[id(rule)] = len(rules)
            rules.append((rule.symbol, rule.size, rule.action))
        return numbers[id(rule)]

    return orjson.dumps(
        {
            "reductions": [{name: number(rule) for name, rule in row.items()} for row in table.reductions],
            "eager": [number(rule) for rule in table.eager],
            "default": [number(rule) for rule in table.default],
            "rules": rules,
            "shifts": table.shifts,
            "gotos": table.gotos,
            "start_states": table.start_states,
            "end_states": sorted(table.end_states),
        }
    )


def _decoded(data: bytes) -> ParseTable:
    """Undo `_encoded`. Raises ValueError, KeyError, TypeError, IndexError."""
    raw = orjson.loads(data)
    rules = [Rule(*fields) for fields in raw["rules"]]

    def rule(number: int | None) -> Rule | None:
        return None if number is None else rules[number]

    return ParseTable(
        raw["shifts"],
        raw["gotos"],
        [{name: rules[number] for name, number in row.items()} for row in raw["reductions"]],
        [rule(number) for number in raw["eager"]],
        [rule(number) for number in raw["default"]],
        raw["start_states"],
        frozenset(raw["end_states"]),
    )


def build_table(text: str) -> ParseTable:
    """The table of a grammar in lark's notation."""
    from lark import Lark
    from lark.lexer import Lexer
    from lark.parsers.lalr_analysis import Shift

    class NoLexer(Lexer):
        def __init__(self, conf: Any) -> None:
            pass

        def lex(self, lexer_state: Any, parser_state: Any) -> Any:
            raise NotImplementedError

    lark = Lark(text, parser="lalr", lexer=NoLexer, start=list(STARTS), keep_all_tokens=True)
    raw = lark.parser.parser._parse_table
    rules: dict[int, Rule] = {}
    shifts: list[dict[str, int]] = []
    gotos: list[dict[str, int]] = []
    reductions: list[dict[str, Rule]] = []
    for number in range(len(raw.states)):
        shift: dict[str, int] = {}
        goto: dict[str, int] = {}
        reduction: dict[str, Rule] = {}
        for symbol, (kind, target) in raw.states[number].items():
            if kind is not Shift:
                rule = rules.get(id(target))
                if rule is None:
                    rule = Rule(target.origin.name, len(target.expansion), target.alias or "")
                    rules[id(target)] = rule
                reduction[symbol] = rule
            elif symbol.isupper() or symbol == END:
                shift[symbol] = target
            else:
                goto[symbol] = target
        shifts.append(shift)
        gotos.append(goto)
        reductions.append(reduction)
    defaults = [_default(s, r) for s, r in zip(shifts, reductions, strict=True)]
    eager = [
        default if default is not None and not shift and len(set(map(id, reduction.values()))) == 1 else None
        for default, shift, reduction in zip(defaults, shifts, reductions, strict=True)
    ]
    return ParseTable(
        shifts,
        gotos,
        reductions,
        eager,
        defaults,
        {name: raw.start_states[name] for name in STARTS},
        frozenset(raw.end_states.values()),
    )


def _default(shift: Mapping[str, int], reduction: Mapping[str, Rule]) -> Rule | None:
    """The most frequent reduction of a state, as yacc chooses it."""
    if ERROR in shift or not reduction:
        return None
    counts = Counter(map(id, reduction.values()))
    best = max(counts, key=lambda rule: counts[rule])
    return next(rule for rule in reduction.values() if id(rule) == best)
