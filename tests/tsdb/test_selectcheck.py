"""A long select asks in between whether it is to go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tsdb.stores import HOUR, T0, Store
from tsdb.select import SelectHints

MINUTE = 60_000
PARTS = 3


class EndedError(Exception):
    """Raised by a check."""


class Check:
    """Counts its calls and raises at one of them."""

    def __init__(self, last: int) -> None:
        self.calls, self._last = 0, last

    def __call__(self) -> None:
        self.calls += 1
        if self.calls == self._last:
            raise EndedError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two series in some blocks and a head."""
    made = Store(tmp_path / "data")
    for start in range(0, 2 * PARTS, 2):
        made.fill(2, T0 + start * HOUR, 60, step=2 * MINUTE)
        made.db.maintenance.compact_head()
    made.fill(2, T0 + 2 * PARTS * HOUR, 3, step=2 * MINUTE)
    assert len(made.db.blocks()) >= 2
    return made


def sample_count(store: Store, hints: SelectHints) -> int:
    selection = store.db.querier().select((), T0, T0 + 24 * HOUR, hints)
    return len(selection.read(0, len(selection.labels)).t_ms)


def test_a_check_is_called_between_blocks_and_what_it_raises_ends_the_select(store: Store) -> None:
    whole = Check(0)
    expected = sample_count(store, SelectHints().checked(whole))
    assert expected == 2 * (60 * PARTS + 3)
    assert whole.calls >= len(store.db.blocks())
    store.db.close()
    store.open()
    for last in range(1, whole.calls + 1):
        check = Check(last)
        with pytest.raises(EndedError):
            sample_count(store, SelectHints().checked(check))
        assert check.calls == last
        store.db.close()
        store.open()
    assert sample_count(store, SelectHints()) == expected


def test_hints_with_another_check_are_equal_and_keep_it() -> None:
    check = Check(0)
    hints = SelectHints(step_ms=5, function="rate", grouping=("a",), labels_only=True)
    assert hints.checked(check) == hints
    hints.checked(check).aimed(0, True, 3).check()
    assert check.calls == 1
