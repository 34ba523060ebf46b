"""A replay that brings together what belongs to the same series leaves the head that storing in the order of
the log leaves; and which records may change places."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tsdb.stores import HOUR, OPTIONS, T0, Store, histograms, matcher, name
from tsdb import walwindow
from tsdb.arena import reserve
from tsdb.columns import Exemplar, HistogramColumns, Metadata, SampleColumns, WriteBatch
from tsdb.kernels import append as k
from tsdb.kernels.recordgroups import group_records
from tsdb.labels import Labels
from tsdb.select import STALE_BITS
from tsdb.walwindow import WindowOrder

TARGETS = [range(8), range(8, 11), range(11, 30), range(30, 31), range(31, 40)]
HISTOGRAM = 90


class Life:
    """Writes what a store may get, at random from a seed, and leaves the folder as a kill would."""

    def __init__(self, path: Path, seed: int, start_timestamps: bool) -> None:
        self.rng = np.random.default_rng(seed)
        options = replace(
            OPTIONS,
            snapshot_on_close=False,
            start_timestamps=start_timestamps,
            out_of_order_window_ms=HOUR,
        )
        self.store = Store(path, options)
        self.now = T0
        self.values = np.zeros(200)
        self.first = 0

    def live(self, steps: int) -> None:
        for step in range(steps):
            self.now += 15_000
            for target in self.rng.permutation(len(TARGETS)).tolist():
                self._scrape([self.first + i for i in TARGETS[target]], step)
            if step == steps // 2:
                # Series of the first half end up in a block; others take their slots.
                self.now += 3 * HOUR
                self._scrape([1], step)
                self.store.db.maintenance.cut_head(self.now - HOUR)
                self.store.db.maintenance.cut_head(self.now - HOUR + 1)
                self.first = 100
        self.store.db.wal.flush()
        self.store.db.close()

    def _scrape(self, series: list[int], step: int) -> None:
        rng, appender = self.rng, self.store.db.appender()
        picked = [i for i in series if rng.random() < 0.9] or series[:1]
        if rng.random() < 0.2:
            picked = [*picked, int(rng.integers(0, 40)) + self.first]
        refs = appender.refs([name(i) for i in picked])
        self.values[picked] += rng.integers(0, 50, len(picked))
        bits = (self.values[picked] / 8).view(np.uint64)
        bits[rng.random(len(picked)) < 0.05] = STALE_BITS
        odd = rng.random(len(picked)) < 0.05
        bits[odd] = rng.integers(0, 1 << 63, int(odd.sum()), dtype=np.uint64)
        t = np.full(len(picked), self.now, dtype=np.int64)
        if rng.random() < 0.2:
            t -= int(rng.integers(0, 60_000))
        begun = np.full(len(picked), self.now // 100_000 * 100_000) if rng.random() < 0.3 else None
        self.store.now_s = self.now / 1000
        # Samples of one series twice in a batch of which the second is late or refused stay out of the way.
        _, first = np.unique(refs, return_index=True)
        keep = np.sort(first)
        samples = SampleColumns(
            refs[keep], t[keep], bits[keep].view(np.float64), None if begun is None else begun[keep]
        )
        more: dict[str, object] = {}
        if rng.random() < 0.1:
            trace = Labels.from_dict({"trace_id": str(step)})
            more["exemplars"] = [Exemplar(int(refs[0]), trace, 0.5, int(t[0]))]
        if rng.random() < 0.1:
            more["metadata"] = [Metadata(f"m{step % 7}", "counter", f"help {step}", "")]
        if rng.random() < 0.1:
            ref = appender.refs([name(HISTOGRAM)])
            more["histograms"] = HistogramColumns(ref, histograms([int(t[0])]))
        appender.append(WriteBatch(samples, **more)).durable.result(10)  # type: ignore[arg-type]
        if rng.random() < 0.05:
            # A float in a series of histograms: the log's coder begins from zero after one.
            appender.append(
                WriteBatch(
                    SampleColumns(
                        appender.refs([name(HISTOGRAM)]), np.array([self.now + 1]), np.array([float(step)])
                    )
                )
            ).durable.result(10)
        if rng.random() < 0.02:
            self.store.db.delete_series([[matcher("i", str(picked[0]))]], self.now - 60_000, self.now)


def replayed(path: Path, options: object) -> dict[str, object]:
    """All that the head knows after a replay, arrays as bytes. Places in arenas are left out: their order is
    that of storing."""
    store = Store(path, options)  # type: ignore[arg-type]
    db, head = store.db, store.db.head
    used = head.series.slots_used
    querier = db.querier()
    selection = querier.select((), -(2**62), 2**62)
    batch = selection.read(0, len(selection.labels))
    rows = {}
    for row, labels in enumerate(selection.labels.rows()):
        lo, hi = int(batch.offsets[row]), int(batch.offsets[row + 1])
        started = b"" if batch.start_t_ms is None else batch.start_t_ms[lo:hi].tobytes()
        rows[labels] = (batch.t_ms[lo:hi].tobytes(), batch.values[lo:hi].tobytes(), started)
    querier.close()
    parts = batch.histograms
    found = {
        "rows": rows,
        "histograms": None
        if parts is None
        else [getattr(parts, column).tobytes() for column in ("t_ms", "sum", "pos_count", "row_offsets")],
        "states": np.delete(head.rows[:used], [k.SLABS, k.CHAINS], axis=1).tobytes(),
        "alive": head.series.alive[:used].tobytes(),
        "generation": head.series.generation[:used].tobytes(),
        "exemplars": [
            (each.labels, [(e.labels, e.value, e.t_ms) for e in each.exemplars])
            for each in db.exemplars([[matcher("__name__", "m")]], -(2**62), 2**62)
        ],
        "metadata": db.metadata(),
        "tombstones": [(stone.refs.tolist(), stone.mint, stone.maxt) for stone in db.head_tombstones],
        "counts": head.counters[[k.STORED, k.STORED_LATE, k.MIN_T, k.MAX_T, k.MIN_LATE_T]].tolist(),
        "newest": sorted(db.newest_t.items()),
    }
    db.close()
    return found


@pytest.mark.parametrize("start_timestamps", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_head_is_that_of_storing_in_the_order_of_the_log(tmp_path, monkeypatch, seed, start_timestamps):
    life = Life(tmp_path / "life", seed, start_timestamps)
    life.live(60)
    options = life.store.options
    turned = []
    arrange = WindowOrder.arrange

    def watched(self: WindowOrder, window):
        out = arrange(self, window)
        turned.extend(len(record.samples) for record in out)
        return out

    for limits, series in (((1, 1 << 20), 5), ((50, 400), 1), ((1 << 20, 1 << 20), 4096)):
        monkeypatch.setattr(walwindow, "WINDOW_LIMITS", limits)
        monkeypatch.setattr(walwindow, "BUNDLE_SERIES", series)
        monkeypatch.setattr(WindowOrder, "arrange", watched)
        ours = tmp_path / f"{limits[0]}-{series}"
        shutil.copytree(life.store.path, ours)
        monkeypatch.setattr(WindowOrder, "arrange", lambda self, window: list(window))
        plain = replayed(shutil.copytree(life.store.path, tmp_path / f"plain-{limits[0]}"), options)
        monkeypatch.setattr(WindowOrder, "arrange", watched)
        found = replayed(ours, options)
        for part, value in plain.items():
            assert found[part] == value, part
        assert len(plain["rows"]) > 40
    # Otherwise nothing was shown: some windows were taken apart.
    assert max(turned) > 1


refs_of_records = st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=6), min_size=1, max_size=14)


@settings(max_examples=200, deadline=None)
@given(st.lists(refs_of_records, min_size=1, max_size=3), st.integers(1, 12))
def test_bundles_share_no_series_and_hold_whole_groups(windows, limit):
    owners = reserve(np.uint32, 36)
    base = 0
    for records in windows:
        refs = np.array([ref | (ref % 3) << 24 for record in records for ref in record], dtype=np.uint32)
        ends = np.cumsum([len(record) for record in records])
        parents, sizes, bundles = (np.empty(len(records), dtype=np.int64) for _ in range(3))
        count = group_records(refs, ends, base, limit, owners, parents, sizes, bundles)
        base += len(records)
        assert count == int(bundles.max()) + 1
        # Slots behind the end of the table count as one.
        slots = [{min(ref, 35) for ref in record} for record in records]
        groups: list[tuple[set[int], set[int]]] = []
        for number, held in enumerate(slots):
            touched = [group for group in groups if group[1] & held]
            groups = [group for group in groups if not group[1] & held]
            merged = {number}.union(*(group[0] for group in touched))
            groups.append((merged, held.union(*(group[1] for group in touched))))
        expected, fill, bundle = {}, 0, -1
        for members, series in sorted(groups, key=lambda group: min(group[0])):
            if bundle < 0 or fill + len(series) > limit:
                bundle, fill = bundle + 1, 0
            fill += len(series)
            expected |= dict.fromkeys(members, bundle)
        assert bundles.tolist() == [expected[number] for number in range(len(records))]
