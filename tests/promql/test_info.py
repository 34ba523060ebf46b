"""info(): conditions, times, and joins, beyond Prometheus's info.test."""

from __future__ import annotations

import pytest

from promql.builder import ParserOptions
from promql.engine import Engine
from promql.engineerrors import ExecutionError
from promql.histogramvalue import Histogram
from promql.matrix import ABSENT_BITS, Matrix
from promql.memory import MemoryStore
from promql.operators import info
from promql.operators.info import ReadTime, name_matchers, read_time
from promql.options import EngineOptions
from promql.parser import parse, parse_metric
from tsdb.labels import Matcher, MatchType

MINUTE_MS = 60_000
FEATURES = frozenset({"promql-experimental-functions"})
DELAYED = FEATURES | {"promql-delayed-name-removal"}


def store_of(rows: dict[str, list[float | None]]) -> MemoryStore:
    """Series by metric text, a sample a minute."""
    store = MemoryStore()
    for text, values in rows.items():
        for minute, value in enumerate(values):
            if value is not None:
                store.add_float(parse_metric(text), minute * MINUTE_MS, value)
    return store


def run(
    store: MemoryStore, query: str, steps: int = 1, features: frozenset[str] = DELAYED
) -> dict[str, list[float | None]]:
    """Values by metric text at 0, 1, ... minutes."""
    engine = Engine(EngineOptions(features=features, threads=1))
    found = engine.range(store.querier(), query, 0, (steps - 1) * MINUTE_MS, MINUTE_MS).value
    assert isinstance(found, Matrix)
    bits = found.values.view("u8").tolist()
    out = {}
    for labels, row, cells in zip(found.labels.rows(), bits, found.values.tolist(), strict=True):
        out[str(labels)] = [None if b == ABSENT_BITS else v for b, v in zip(row, cells, strict=True)]
    return out


BASE = {'m{instance="a",job="1"}': [1.0, 2.0, 3.0]}


def test_labels_of_target_info_are_added() -> None:
    store = store_of({**BASE, 'target_info{instance="a",job="1",version="v1"}': [1.0, 1.0, 1.0]})
    assert run(store, "info(m)") == {'m{instance="a", job="1", version="v1"}': [1.0]}


def test_eager_name_removal_keeps_names_that_info_leaves() -> None:
    store = store_of({**BASE, 'target_info{instance="a",job="1",version="v1"}': [1.0]})
    assert run(store, "info(m)", features=FEATURES) == {'m{instance="a", job="1", version="v1"}': [1.0]}
    got = run(store, "info(abs(m))", features=FEATURES)
    assert got == {'{instance="a", job="1", version="v1"}': [1.0]}


def test_a_selector_limits_the_labels_that_are_copied() -> None:
    store = store_of({**BASE, 'target_info{instance="a",job="1",version="v1",zone="z"}': [1.0]})
    assert run(store, 'info(m, {zone=~".+"})') == {'m{instance="a", job="1", zone="z"}': [1.0]}


def test_series_change_labels_when_the_info_series_does() -> None:
    store = store_of(
        {
            **BASE,
            'target_info{instance="a",job="1",version="v1"}': [1.0, 1.0, None],
            'target_info{instance="a",job="1",version="v2"}': [None, None, 1.0],
        }
    )
    assert run(store, "info(m)", steps=3) == {
        'm{instance="a", job="1", version="v1"}': [1.0, 2.0, None],
        'm{instance="a", job="1", version="v2"}': [None, None, 3.0],
    }


def test_two_info_series_of_one_age_are_an_error() -> None:
    store = store_of(
        {
            **BASE,
            'target_info{instance="a",job="1",version="v1"}': [1.0],
            'target_info{instance="a",job="1",version="v2"}': [1.0],
        }
    )
    with pytest.raises(ExecutionError, match="found duplicate series for info metric"):
        run(store, "info(m)")


def test_values_with_regexp_characters_join() -> None:
    rows = {
        'm{instance="a.b|c(d)",job="1+"}': [1.0],
        'target_info{instance="a.b|c(d)",job="1+",x="y"}': [1.0],
    }
    store = store_of({**rows, 'target_info{instance="aXb",job="1+",x="no"}': [1.0]})
    assert list(run(store, "info(m)")) == ['m{instance="a.b|c(d)", job="1+", x="y"}']


def test_more_values_than_are_pushed_down_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: dict[str, list[float | None]] = {}
    for i in range(5):
        rows[f'm{{instance="{i}",job="1"}}'] = [float(i)]
        rows[f'target_info{{instance="{i}",job="1",n="{i}"}}'] = [1.0]
    rows['target_info{instance="other",job="1",n="x"}'] = [1.0]
    pushed = run(store_of(rows), "info(m)")
    monkeypatch.setattr(info, "PUSHED_VALUES_MAX", 2)
    assert run(store_of(rows), "info(m)") == pushed
    assert len(pushed) == 5


def test_series_that_become_equal_at_one_step_are_an_error() -> None:
    store = store_of(
        {
            'm{instance="a",job="1",v="x"}': [1.0],
            'm{instance="a",job="1"}': [2.0],
            'target_info{instance="a",job="1",v="x"}': [1.0],
        }
    )
    with pytest.raises(ExecutionError, match="vector cannot contain metrics with the same labelset"):
        run(store, "info(m)")


def test_histograms_of_the_base_pass_and_those_of_info_series_are_refused() -> None:
    store = store_of({**BASE, 'target_info{instance="a",job="1",v="x"}': [1.0]})
    store.add_histogram(
        parse_metric('h{instance="a",job="1"}'), 0, Histogram(count=1.0, positive=((0, 1.0),))
    )
    assert run(store, "histogram_count(info(h))") == {'{instance="a", job="1", v="x"}': [1.0]}
    with pytest.raises(ExecutionError, match="info sample should be float"):
        run(store, 'info(m, {__name__="h"})')


@pytest.mark.parametrize(
    ("given", "want"),
    [
        ([], ['__name__="target_info"']),
        (["target_.+"], ['__name__=~"target_.+"']),
        (["!build_info"], ['__name__=~".+_info"', '__name__!="build_info"']),
    ],
)
def test_names_default_to_target_info_or_to_any_info_metric(given: list[str], want: list[str]) -> None:
    matchers = [
        Matcher(MatchType.NOT_EQUAL, "__name__", text[1:])
        if text.startswith("!")
        else Matcher(MatchType.REGEXP, "__name__", text)
        for text in given
    ]
    assert [str(m) for m in name_matchers(matchers)] == want


@pytest.mark.parametrize(
    ("query", "want"),
    [
        ("m", ReadTime()),
        ("m offset 1m", ReadTime(offset_ms=60_000)),
        ("rate(m[5m] @ 10 offset 1m)", ReadTime(at_ms=10_000, offset_ms=60_000)),
        ("last_over_time((m offset 1m)[10m:1m] @ 180)", ReadTime(at_ms=180_000, offset_ms=60_000)),
        ("last_over_time((m @ 5)[10m:1m] @ 180 offset 1m)", ReadTime(at_ms=5_000)),
        ("sum(1 + m offset 2m) + n offset 3m", ReadTime(offset_ms=120_000)),
        ("vector(1)", None),
    ],
)
def test_info_reads_when_the_first_selector_does(query: str, want: ReadTime | None) -> None:
    assert read_time(parse(query, ParserOptions.everything())) == want


def test_info_series_may_disagree_where_the_base_has_no_sample() -> None:
    infos = {
        'a_info{c="1",instance="a",job="1"}': [1.0, 1.0],
        'b_info{c="2",instance="a",job="1"}': [1.0, 1.0],
    }
    store = store_of({'m{instance="a",job="1"}': [1.0, 200.0], **infos})
    assert run(store, 'info(m > 300, {__name__=~"._info"})', 2) == {}
    assert run(store, 'info(m > 100, {__name__=~"._info"})') == {}
    with pytest.raises(ExecutionError, match="conflicting label: c"):
        run(store, 'info(m > 100, {__name__=~"._info"})', 2)
