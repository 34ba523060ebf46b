"""The parse table of the grammar, and the loop that runs it.

lark computes the LALR(1) table; the loop is ours because errors must be found and explained as Prometheus's
yacc parser does: reductions that need no look-ahead happen before the next token is read (so an earlier
error wins over a later bad character), and after a bad token default reductions are made before the stack is
searched for an alternative with ERROR.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Protocol

from promql.tokens import Token


class Actions(Protocol):
    """Finds the action of a name; an action gets the values of its symbols."""

    def __getitem__(self, action: str, /) -> Callable[[list[Any]], Any]: ...


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


class SyntaxProblem(Exception):
    """A token that fits nowhere; `action` names the alternative that explains it, "" if none does."""

    def __init__(self, token: Token, action: str) -> None:
        super().__init__(token.kind)
        self.token = token
        self.action = action


@lru_cache(maxsize=1)
def parse_table() -> ParseTable:
    """The table of grammar.lark; computed at the first use (about a third of a second)."""
    from lark import Lark
    from lark.lexer import Lexer
    from lark.parsers.lalr_analysis import Shift

    class NoLexer(Lexer):
        def __init__(self, conf: Any) -> None:
            pass

        def lex(self, lexer_state: Any, parser_state: Any) -> Any:
            raise NotImplementedError

    text = resources.files("promql").joinpath("grammar.lark").read_text(encoding="utf-8")
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


def run(start: str, next_token: Callable[[], Token], actions: Actions) -> Any:
    """Value of the start symbol. `actions` get the values of an alternative's symbols (tokens as they are).

    Raises SyntaxProblem for a bad token, and whatever the lexer and the actions raise.
    """
    table = parse_table()
    shifts, gotos, reductions, eager = table.shifts, table.gotos, table.reductions, table.eager
    states = [table.start_states[start]]
    values: list[Any] = []
    token: Token | None = None
    while True:
        state = states[-1]
        rule = eager[state]
        if rule is None:
            if token is None:
                token = next_token()
            target = shifts[state].get(token.kind)
            if target is not None:
                states.append(target)
                values.append(token)
                token = None
                continue
            kind = END if token.kind == "EOF" else token.kind
            if kind == END and state in table.end_states:
                return values[-1]
            rule = reductions[state].get(kind)
            if rule is None:
                raise _explain(table, states, values, token, actions)
        _reduce(rule, states, values, gotos, actions)


def _reduce(
    rule: Rule,
    states: list[int],
    values: list[Any],
    gotos: Sequence[Mapping[str, int]],
    actions: Actions,
) -> None:
    size = rule.size
    if size == 1 and not rule.action:
        states[-1] = gotos[states[-2]][rule.symbol]
        return
    parts = values[len(values) - size :]
    del values[len(values) - size :], states[len(states) - size :]
    values.append(actions[rule.action](parts))
    states.append(gotos[states[-1]][rule.symbol])


def _explain(
    table: ParseTable,
    states: list[int],
    values: list[Any],
    token: Token,
    actions: Actions,
) -> SyntaxProblem:
    """Reduce by default as far as possible, then look down the stack for the alternative with ERROR."""
    rule = table.default[states[-1]]
    while rule is not None:
        _reduce(rule, states, values, table.gotos, actions)
        rule = table.default[states[-1]]
    for state in reversed(states):
        target = table.shifts[state].get(ERROR)
        if target is not None:
            found = table.default[target]
            return SyntaxProblem(token, found.action if found is not None else "")
    return SyntaxProblem(token, "")
