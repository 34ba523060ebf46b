"""Counters by key: bounded, with what exceeds the bound in one row."""

from __future__ import annotations

from agent.counttable import FORGET_SECONDS, IDLE_SECONDS, CountTable


def counted(table: CountTable[str]) -> dict[str, float]:
    return {key: float(values[0]) for key, values in table.items()}


def test_keys_beyond_the_limit_count_under_other() -> None:
    table = CountTable("other", 2, 1)
    for key in ("a", "b", "c", "a", "d"):
        table.values[table.row(key, 0.0), 0] += 1
    assert counted(table) == {"a": 2, "b": 1, "other": 2}
    assert table.folded_count == 2
    assert len(table) == 2


def test_a_new_key_takes_the_place_of_one_that_was_idle_and_starts_at_zero() -> None:
    table = CountTable("other", 2, 1)
    for at, key in ((0.0, "a"), (1.0, "b"), (IDLE_SECONDS, "c"), (IDLE_SECONDS + 0.5, "d")):
        table.values[table.row(key, at), 0] += 5
    assert counted(table) == {"b": 5, "c": 5, "other": 5}
    table.values[table.row("d", IDLE_SECONDS + 1.0), 0] += 1
    assert counted(table) == {"c": 5, "d": 1, "other": 5}


def test_a_key_that_counts_stays_and_an_idle_one_is_forgotten() -> None:
    table = CountTable("other", 9, 1)
    for key in ("old", "busy"):
        table.values[table.row(key, 0.0), 0] += 1
    table.row("busy", FORGET_SECONDS)
    assert table.forget(FORGET_SECONDS) == 1
    assert counted(table) == {"busy": 1}
    assert table.forget(FORGET_SECONDS) == 0
