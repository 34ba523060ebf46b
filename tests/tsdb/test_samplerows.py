"""Any rows of any selection, in any order, are the rows that a plain read gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.tsdb.memoryselection import rows_of
from tests.tsdb.stores import T0, Store, name
from tsdb.samplerows import read_rows
from tsdb.select import Selection
from tsdb.tombstone import Mask, masked

SERIES = 40


def shuffled_equals_plain(selection: Selection) -> None:
    labels = selection.labels.rows()
    plain = rows_of(labels, selection.read(0, len(labels)))
    picks = np.random.default_rng(5).permutation(len(labels))[: len(labels) - 3]
    rows = rows_of([labels[i] for i in picks], read_rows(selection, picks))
    assert rows == [plain[i] for i in picks]
    assert sum(len(row.floats) for row in rows) > 100


def test_rows_of_the_head_and_of_a_masked_head(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for k in range(300):
        store.append([(name(i), T0 + 15_000 * k + i, float(k * i)) for i in range(SERIES) if (k + i) % 7])
    selection = store.db.querier().select((), T0, T0 + 10_000_000)
    assert len(selection.labels) == SERIES
    shuffled_equals_plain(selection)
    hidden = Mask(np.arange(SERIES) % 3 == 0, T0 + 15_000 * 20, T0 + 15_000 * 90)
    shuffled_equals_plain(masked(selection, [hidden]))
    store.db.close()
