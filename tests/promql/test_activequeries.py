"""The log of running queries survives the process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from promql.activequeries import FILE_NAME, SLOT_BYTES, ActiveQueries, Entered, entry, read_unfinished


def test_query_that_was_running_is_found_by_the_next_process(tmp_path: Path) -> None:
    log = ActiveQueries(tmp_path, 3, lambda: 1700.0)
    done = log.enter("up")
    log.enter('rate(x{a="ü"}[5m])')
    log.leave(done)
    left = ActiveQueries(tmp_path, 3, lambda: 1701.0)
    assert left.unfinished == [{"query": 'rate(x{a="ü"}[5m])', "timestamp_sec": 1700}]
    left.close()
    log.close()
    assert read_unfinished(tmp_path / FILE_NAME) == []


def test_slot_is_free_again_even_when_the_query_fails(tmp_path: Path) -> None:
    log = ActiveQueries(tmp_path, 1, lambda: 0.0)
    with pytest.raises(ValueError, match="boom"), Entered(log, "a"):
        raise ValueError("boom")
    with Entered(log, "b"):
        assert [item["query"] for item in read_unfinished(tmp_path / FILE_NAME)] == ["b"]
    log.close()


def test_the_file_has_its_room_on_disk_before_it_is_mapped(tmp_path: Path) -> None:
    log = ActiveQueries(tmp_path, 50, lambda: 0.0)
    status = (tmp_path / FILE_NAME).stat()
    assert status.st_blocks * 512 >= status.st_size == 1 + 50 * SLOT_BYTES
    log.close()


def test_more_queries_than_slots_run_without_being_logged(tmp_path: Path) -> None:
    log = ActiveQueries(tmp_path, 1, lambda: 0.0)
    assert log.enter("a") == 0
    assert log.enter("b") == -1
    log.leave(-1)
    assert [item["query"] for item in read_unfinished(tmp_path / FILE_NAME)] == ["a"]
    log.close()


@pytest.mark.parametrize("query", ["x" * 5000, "ü" * 5000, '"\n\\' * 3000, ""])
def test_entry_fits_its_slot_and_stays_json(query: str) -> None:
    raw = entry(query, 1)
    assert len(raw) <= SLOT_BYTES
    item = json.loads(raw[:-1])
    assert query.startswith(item["query"])
    assert len(raw) > SLOT_BYTES - 20 or item["query"] == query


def test_damaged_file_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(
        b"[" + b'{"query":"up","timestamp_sec":1},'.ljust(SLOT_BYTES, b"\0") + b"{{{"
    )
    log = ActiveQueries(tmp_path, 2, lambda: 0.0)
    assert [item["query"] for item in log.unfinished] == ["up"]
    log.close()
