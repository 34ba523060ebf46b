"""The parse table that a file keeps is the one that lark computes; a file that is cut short is made again."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from promql import parsetable
from promql.parsetable import ParseTable, build_table, parse_table

TEXT = resources.files("promql").joinpath("grammar.lark").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A package folder of its own, so that the real file stays."""
    (tmp_path / "grammar.lark").write_text(TEXT, encoding="utf-8")
    monkeypatch.setattr(parsetable.resources, "files", lambda package: tmp_path)
    parse_table.cache_clear()
    yield tmp_path
    parse_table.cache_clear()


def file_of(folder: Path) -> Path:
    (found,) = (folder / "__pycache__").iterdir()
    return found


def numbered(table: ParseTable) -> list[tuple]:
    """States in the order in which they are reached: lark numbers them as its sets happen to be ordered."""
    order = [table.start_states[name] for name in parsetable.STARTS]
    for state in order:
        ways = {**table.shifts[state], **table.gotos[state]}
        order += [ways[symbol] for symbol in sorted(ways) if ways[symbol] not in order]
    place = {state: number for number, state in enumerate(order)}
    return [
        (
            {symbol: place[to] for symbol, to in table.shifts[state].items()},
            {symbol: place[to] for symbol, to in table.gotos[state].items()},
            table.reductions[state],
            state in table.end_states,
        )
        for state in order
    ]


def test_the_file_holds_what_was_computed_and_is_what_is_read(folder, monkeypatch):
    made = parse_table()
    assert numbered(made) == numbered(build_table(TEXT))
    monkeypatch.setattr(parsetable, "build_table", None)
    parse_table.cache_clear()
    read = parse_table()
    assert read == made
    # The loop compares rules by identity: one object a rule.
    rules = [rule for row in read.reductions for rule in row.values()]
    assert len(set(map(id, rules))) == len(set(map(id, (r for row in made.reductions for r in row.values()))))


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"rules": [1]}', None])
def test_a_damaged_file_is_replaced(folder, damage):
    whole = parse_table()
    path = file_of(folder)
    path.write_bytes(path.read_bytes()[:1000] if damage is None else damage)
    parse_table.cache_clear()
    again = parse_table()
    assert numbered(again) == numbered(whole)
    parse_table.cache_clear()
    assert parse_table() == again


def test_another_grammar_has_another_file(folder):
    parse_table()
    first = file_of(folder).name
    (folder / "grammar.lark").write_text(TEXT + "\n// changed\n", encoding="utf-8")
    parse_table.cache_clear()
    table = parse_table()
    assert isinstance(table, ParseTable)
    assert {path.name for path in (folder / "__pycache__").iterdir()} > {first}


def test_a_folder_that_cannot_be_written_costs_the_file_only(folder):
    (folder / "__pycache__").write_text("in the way", encoding="utf-8")
    assert numbered(parse_table()) == numbered(build_table(TEXT))
