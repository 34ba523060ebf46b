"""The loop that runs the parse table of the grammar (promql/parsetable.py).

The loop is ours because errors must be found and explained as Prometheus's yacc parser does: reductions that
need no look-ahead happen before the next token is read (so an earlier error wins over a later bad character),
and after a bad token default reductions are made before the stack is searched for an alternative with ERROR.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from promql.parsetable import END, ERROR, ParseTable, Rule, parse_table
from promql.tokens import Token


class Actions(Protocol):
    """Finds the action of a name; an action gets the values of its symbols."""

    def __getitem__(self, action: str, /) -> Callable[[list[Any]], Any]: ...


class SyntaxProblem(Exception):
    """A token that fits nowhere; `action` names the alternative that explains it, "" if none does."""

    def __init__(self, token: Token, action: str) -> None:
        super().__init__(token.kind)
        self.token = token
        self.action = action


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
