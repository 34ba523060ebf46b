"""The head's inverted index against brute force over label sets."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from tsdb import postings as postings_module
from tsdb.labels import Labels, Matcher, MatchType
from tsdb.postings import Postings
from tsdb.regex import InvalidRegexError
from tsdb.serieslabels import SeriesLabels
from tsdb.symbols import SymbolTable

VALUES = ["", "x", "y", "xy", "prod-1", "prod-2", "new\nline"]
PATTERNS = [
    *VALUES,
    ".*",
    ".+",
    "x|y",
    "x|",
    "prod-.*",
    "(?i)X",
    "[^x]+",
    ".*o.*",
    "unknown",
    "",
    "x.*|y",
    ".*1",
]
label_sets = st.dictionaries(
    st.sampled_from(["__name__", "a", "b", "job"]), st.sampled_from(VALUES), max_size=4
).map(Labels.from_dict)
matchers = st.lists(
    st.builds(
        Matcher,
        st.sampled_from(list(MatchType)),
        st.sampled_from(["__name__", "a", "b", "job", "none"]),
        st.sampled_from(PATTERNS),
    ),
    max_size=4,
)


def index_of(rows: dict[int, Labels], bulk: bool = False) -> Postings:
    symbols = SymbolTable()
    postings = Postings(symbols)
    labels = SeriesLabels.from_labels(list(rows.values()), symbols)
    refs = np.array(list(rows), dtype=np.uint32)
    if bulk:
        postings.add_many(refs, labels.offsets, labels.name_ids, labels.value_ids)
    else:
        for i, ref in enumerate(rows):
            pairs = slice(int(labels.offsets[i]), int(labels.offsets[i + 1]))
            postings.add(ref, labels.name_ids[pairs], labels.value_ids[pairs])
    return postings


def brute_force(rows: dict[int, Labels], conditions: Sequence[Matcher]) -> list[int]:
    return sorted(ref for ref, row in rows.items() if all(m.matches(row.get(m.name)) for m in conditions))


@settings(max_examples=250, deadline=None)
@given(
    rows=st.dictionaries(st.integers(0, 1 << 20), label_sets, max_size=25),
    conditions=matchers,
    more=matchers,
    bulk=st.booleans(),
    dead=st.sets(st.integers(0, 24)),
)
def test_select_agrees_with_brute_force_before_and_after_removal(
    rows: dict[int, Labels], conditions: list[Matcher], more: list[Matcher], bulk: bool, dead: set[int]
) -> None:
    postings = index_of(rows, bulk)
    for _ in range(2):
        for each in (conditions, more):
            assert postings.select(each).tolist() == brute_force(rows, each)
    gone = np.array([ref for i, ref in enumerate(rows) if i in dead], dtype=np.uint32)
    postings.remove(gone)
    left = {ref: row for ref, row in rows.items() if ref not in set(gone.tolist())}
    for each in (conditions, more):
        assert postings.select(each).tolist() == brute_force(left, each)
    names = sorted({name for row in left.values() for name, _ in row})
    assert postings.label_names() == names
    for name in names:
        assert postings.label_values(name) == sorted({row.get(name) for row in left.values()} - {""})


ROWS = {
    1: Labels.from_dict({"__name__": "up", "a": "x"}),
    2: Labels.from_dict({"__name__": "up"}),
    3: Labels.from_dict({"__name__": "up", "a": "y", "b": "1"}),
}
EMPTY_RULES: list[tuple[Matcher, list[int]]] = [
    (Matcher(MatchType.EQUAL, "a", ""), [2]),
    (Matcher(MatchType.NOT_EQUAL, "a", ""), [1, 3]),
    (Matcher(MatchType.NOT_EQUAL, "a", "x"), [2, 3]),
    (Matcher(MatchType.REGEXP, "a", ".*"), [1, 2, 3]),
    (Matcher(MatchType.REGEXP, "a", ".+"), [1, 3]),
    (Matcher(MatchType.NOT_REGEXP, "a", ".*"), []),
    (Matcher(MatchType.NOT_REGEXP, "a", ".+"), [2]),
    (Matcher(MatchType.REGEXP, "a", ""), [2]),
    (Matcher(MatchType.NOT_REGEXP, "a", ""), [1, 3]),
    (Matcher(MatchType.REGEXP, "a", "x|"), [1, 2]),
    (Matcher(MatchType.NOT_REGEXP, "a", "x|"), [3]),
    (Matcher(MatchType.NOT_REGEXP, "a", "x"), [2, 3]),
    (Matcher(MatchType.EQUAL, "none", ""), [1, 2, 3]),
    (Matcher(MatchType.EQUAL, "none", "x"), []),
]


@pytest.mark.parametrize(("matcher", "refs"), EMPTY_RULES, ids=lambda case: str(case))
def test_absent_labels_equal_empty_ones(matcher: Matcher, refs: list[int]) -> None:
    assert index_of(ROWS).select([matcher]).tolist() == refs


def test_no_matchers_select_every_series() -> None:
    assert index_of(ROWS).select([]).tolist() == [1, 2, 3]


def test_label_names_and_values_of_some_series() -> None:
    postings = index_of(ROWS)
    assert postings.label_names(BitMap([2])) == ["__name__"]
    assert postings.label_values("a", np.array([3], dtype=np.uint32)) == ["y"]
    assert postings.label_values("none") == []


def test_values_added_after_a_cached_regex_are_found() -> None:
    postings = index_of(ROWS)
    matcher = Matcher(MatchType.REGEXP, "a", "[x-z]+")
    assert postings.select([matcher]).tolist() == [1, 3]
    symbols = postings._symbols
    postings.add(9, symbols.intern_many(["a"]), symbols.intern_many(["zz"]))
    postings.add(10, symbols.intern_many(["a"]), symbols.intern_many(["x"]))
    assert postings.select([matcher]).tolist() == [1, 3, 9, 10]
    assert postings.select([Matcher(MatchType.NOT_REGEXP, "a", "[x-z]+")]).tolist() == [2]


def test_invalid_regex_is_refused() -> None:
    with pytest.raises(InvalidRegexError):
        index_of(ROWS).select([Matcher(MatchType.REGEXP, "a", "(")])


def test_regex_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postings_module, "REGEX_CACHE_LIMIT", 4)
    postings = index_of(ROWS)
    for i in range(20):
        postings.select([Matcher(MatchType.REGEXP, "a", f"[x]{{{i}}}")])
    assert len(postings._regexes) <= 5


def test_cardinality_counts_series_values_and_bytes() -> None:
    figures = index_of(ROWS).cardinality(limit=2)
    assert figures.series_count == 3
    assert figures.label_pair_count == 4
    assert figures.label_name_count == 3
    assert figures.series_by_metric_name == [("up", 3)]
    assert figures.values_by_label_name == [("a", 2), ("__name__", 1)]
    assert figures.memory_by_label_name == [("__name__", 6), ("a", 2)]
    assert figures.series_by_label_pair[0] == ("__name__=up", 3)
    assert len(figures.series_by_label_pair) == 2


def test_readers_see_whole_series_while_a_writer_adds() -> None:
    symbols = SymbolTable()
    postings = Postings(symbols)
    names = symbols.intern_many(["a", "b"])
    values = [symbols.intern_many(["x", f"b{i}"]) for i in range(2000)]
    bad: list[int] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            bad.extend(postings.select([Matcher(MatchType.EQUAL, "b", "")]).tolist())
            bad.extend(postings.select([Matcher(MatchType.NOT_REGEXP, "b", "b[0-9]+")]).tolist())

    reader = threading.Thread(target=read)
    reader.start()
    for ref, pair in enumerate(values):
        postings.add(ref, names, pair)
    done.set()
    reader.join()
    assert bad == []
    assert len(postings.select([Matcher(MatchType.EQUAL, "a", "x")])) == 2000
