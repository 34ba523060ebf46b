"""A store that is opened while the rest of the server is imported."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cli.earlystore import StoreOpening, has_log
from cli.flags import FLAGS, ServeFlags
from tests.tsdb.stores import OPTIONS, Store
from tsdb.errors import LockedError

T0 = 1_700_006_400_000
WAIT_S = 20.0


def opening_of(path: Path) -> StoreOpening:
    values = {flag.name: flag.default for flag in FLAGS} | {"storage.tsdb.path": str(path)}
    flags = ServeFlags(values, frozenset())
    assert has_log(flags)
    return StoreOpening(flags)


@pytest.mark.parametrize("snapshot", [False, True])
def test_samples_are_stored_before_the_options_are_known(tmp_path: Path, snapshot: bool) -> None:
    store = Store(tmp_path / "data", replace(OPTIONS, snapshot_on_close=snapshot))
    store.fill(3, T0, 100)
    store.db.close()
    interval_s = sys.getswitchinterval()
    opening = opening_of(tmp_path / "data")
    opening.begin()
    opening.begin()
    assert opening.progress.storing.wait(WAIT_S)
    assert not opening.database.done()
    opening.settle(OPTIONS)
    store.db = opening.database.result(WAIT_S)
    assert store.read() == store.expected
    assert sys.getswitchinterval() == pytest.approx(interval_s)
    store.db.close()


def test_nobody_waits_for_a_store_that_cannot_be_opened(tmp_path: Path) -> None:
    store = Store(tmp_path / "data", OPTIONS)
    interval_s = sys.getswitchinterval()
    opening = opening_of(tmp_path / "data")
    opening.begin()
    assert opening.progress.storing.wait(WAIT_S)
    with pytest.raises(LockedError):
        opening.database.result(WAIT_S)
    assert sys.getswitchinterval() == pytest.approx(interval_s)
    store.db.close()
