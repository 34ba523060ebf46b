"""The protobuf exposition: every metric type, native histograms, limits, and damaged bodies."""

from __future__ import annotations

import contextlib
import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from ingest.kernels.exposition import TEXT
from ingest.metrics import ScrapeMetrics
from ingest.remotewrite.nativehistogram import NativeHistogram
from ingest.scrape.accept import PROTOBUF
from ingest.scrape.histogramlimit import BucketLimitError, limit_schema
from ingest.scrape.protobuf import HistogramChoice, read_protobuf
from ingest.scrape.samples import Body, SampleOptions, TargetSamples
from ingest.scrape.text import ExpositionError, parse_labels, scan_body
from tests.ingest.fakestore import FakeStore
from tsdb.labels import Labels

COUNTER, GAUGE, SUMMARY, UNTYPED, HISTOGRAM, GAUGE_HISTOGRAM = range(6)


def varint(value: int) -> bytes:
    out = bytearray()
    value &= (1 << 64) - 1
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def integer(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def sint(number: int, value: int) -> bytes:
    return integer(number, (value << 1) ^ (value >> 63))


def double(number: int, value: float) -> bytes:
    return varint(number << 3 | 1) + struct.pack("<d", value)


def blob(number: int, content: bytes | str) -> bytes:
    raw = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def label(name: str, value: str) -> bytes:
    return blob(1, blob(1, name) + blob(2, value))


def packed(number: int, values: list[int]) -> bytes:
    return blob(number, b"".join(varint((v << 1) ^ (v >> 63)) for v in values))


def span(number: int, offset: int, length: int) -> bytes:
    return blob(number, sint(1, offset) + integer(2, length))


def family(name: str, kind: int, *metrics: bytes, help_text: str = "") -> bytes:
    content = blob(1, name) + blob(2, help_text) + integer(3, kind) + b"".join(blob(4, m) for m in metrics)
    return varint(len(content)) + content


def exemplar(value: float, t_ms: int | None, name: str = "id") -> bytes:
    time = b"" if t_ms is None else blob(3, integer(1, t_ms // 1000) + integer(2, t_ms % 1000 * 1_000_000))
    return blob(1, blob(1, name) + blob(2, "x")) + double(2, value) + time


NATIVE = (
    integer(1, 6) + double(2, 12.5) + sint(5, 3) + double(6, 0.001) + integer(7, 1)
    + span(12, -2, 2) + span(12, 1, 1) + packed(13, [2, -1, 1])
)  # fmt: skip
CLASSIC = (
    integer(1, 6)
    + double(2, 12.5)
    + blob(3, integer(1, 2) + double(2, 1.0) + blob(3, exemplar(0.5, 1500)))
    + blob(3, integer(1, 5) + double(2, 2.5))
)


def rows(body: bytes, choice: HistogramChoice | None = None) -> dict[str, tuple[float, int | None]]:
    found = read_protobuf(body, choice or HistogramChoice())
    scanned = scan_body(found.text(), TEXT)
    return {
        str(Labels.from_pairs(parse_labels(scanned.series_text(i), TEXT))): (
            float(scanned.values[i]),
            int(scanned.t_ms[i]) if scanned.timed[i] else None,
        )
        for i in range(scanned.count)
    }


def test_every_simple_type_is_read() -> None:
    body = (
        family("c_total", COUNTER, label("a", 'q"\\\n') + blob(3, double(1, 1e21)) + integer(6, 1234))
        + family("g", GAUGE, blob(2, double(1, -0.1)), help_text="Some help.")
        + family("u.tf", UNTYPED, blob(5, double(1, math.inf)))
        + family(
            "s", SUMMARY, blob(4, integer(1, 7) + double(2, 3.5) + blob(3, double(1, 0.5) + double(2, 9)))
        )
        + family("empty_summary", SUMMARY, blob(4, b""))
    )
    assert rows(body) == {
        'c_total{a="q\\"\\\\\\n"}': (1e21, 1234),
        "g": (-0.1, None),
        "u.tf": (math.inf, None),
        "s_count": (7.0, None),
        "s_sum": (3.5, None),
        's{quantile="0.5"}': (9.0, None),
        "empty_summary_count": (0.0, None),
        "empty_summary_sum": (0.0, None),
    }
    families = read_protobuf(body, HistogramChoice()).families
    assert (families["g"].type, families["g"].help) == ("gauge", "Some help.")
    assert families["u.tf"].type == "unknown"


def test_a_classic_histogram_gets_its_last_bucket() -> None:
    assert rows(family("h", HISTOGRAM, blob(7, CLASSIC))) == {
        "h_count": (6.0, None),
        "h_sum": (12.5, None),
        'h_bucket{le="1.0"}': (2.0, None),
        'h_bucket{le="2.5"}': (5.0, None),
        'h_bucket{le="+Inf"}': (6.0, None),
    }


CHOICES = [
    (NATIVE + CLASSIC, HistogramChoice(), 0, 5),
    (NATIVE + CLASSIC, HistogramChoice(native=True), 1, 1),
    (NATIVE + CLASSIC, HistogramChoice(native=True, classic=True), 1, 6),
    (NATIVE, HistogramChoice(native=True, classic=True), 1, 1),
    (CLASSIC, HistogramChoice(native=True), 0, 5),
    (NATIVE, HistogramChoice(), 0, 3),
]


@pytest.mark.parametrize(("content", "choice", "natives", "samples"), CHOICES)
def test_what_is_kept_of_a_histogram(
    content: bytes, choice: HistogramChoice, natives: int, samples: int
) -> None:
    found = read_protobuf(family("h", HISTOGRAM, blob(7, content)), choice)
    assert (len(found.histograms), len(found.lines)) == (natives, samples)


def test_a_native_histogram_is_read_exactly() -> None:
    found = read_protobuf(family("h", GAUGE_HISTOGRAM, blob(7, NATIVE)), HistogramChoice(native=True))
    histogram = found.histograms[0]
    assert (histogram.schema, histogram.count) == (3, 6)
    assert (histogram.zero_count, histogram.zero_threshold) == (1, 0.001)
    assert histogram.positive_spans == [(-2, 2), (1, 1)]
    assert histogram.positive_counts == [2, 1, 2]
    assert histogram.reset_hint == 3
    assert histogram.sum == 12.5


def test_a_native_histogram_reaches_the_store_and_goes_stale() -> None:
    store = FakeStore()
    options = SampleOptions(histograms=HistogramChoice(native=True), exemplars=True)
    samples = TargetSamples(
        store, Labels.from_dict({"job": "j"}), options, ScrapeMetrics(CollectorRegistry())
    )
    body = family("h", HISTOGRAM, label("a", "b") + blob(7, NATIVE + blob(16, exemplar(1.5, 900)))) + family(
        "g", GAUGE, blob(2, double(1, 4))
    )
    outcome = samples.store(Body(body, PROTOBUF), None, 1000, lambda: 0.1)
    assert (outcome.error, outcome.scraped, outcome.added) == ("", 2, 2)
    (columns,) = store.histograms
    assert str(store.rows[int(columns.refs[0])]) == 'h{a="b", job="j"}'
    assert columns.batch.t_ms.tolist() == [1000]
    assert columns.batch.pos_index.tolist() == [-2, -1, 1]
    assert columns.batch.pos_count.tolist() == [2.0, 1.0, 2.0]
    assert store.values('g{job="j"}') == [4.0]
    assert store.values('h{a="b", job="j"}') == []
    assert [(e.value, e.t_ms) for e in store.exemplars] == [(1.5, 900)]
    samples.store(Body(family("g", GAUGE, blob(2, double(1, 5))), PROTOBUF), None, 2000, lambda: 0.1)
    assert store.values('h{a="b", job="j"}') == ["stale"]
    assert samples.metadata.keys() == {"g"}


def test_a_forgotten_native_histogram_is_looked_up_again() -> None:
    store = FakeStore()
    options = SampleOptions(histograms=HistogramChoice(native=True))
    samples = TargetSamples(store, Labels(), options, ScrapeMetrics(CollectorRegistry()))
    body = Body(family("h", HISTOGRAM, blob(7, NATIVE)), PROTOBUF)
    samples.store(body, None, 1000, lambda: 0.1)
    store.forget()
    assert samples.store(body, None, 2000, lambda: 0.1).error == ""
    refs = [int(columns.refs[0]) for columns in store.histograms]
    assert refs[0] == refs[1]
    assert refs[2] != refs[0]
    assert str(store.rows[refs[2]]) == "h"


BROKEN = [
    (NATIVE + packed(13, [1]), "spans specify different number of buckets"),
    (integer(1, 9) + NATIVE.replace(integer(1, 6), b""), "Count field is 9"),
    (NATIVE + sint(5, -5), "invalid schema"),
    (NATIVE + sint(5, 53), "invalid schema"),
    (NATIVE + sint(5, 1 << 30), "invalid schema"),
]


@pytest.mark.parametrize(("content", "error"), BROKEN)
def test_a_histogram_that_contradicts_itself_fails_the_scrape(content: bytes, error: str) -> None:
    with pytest.raises(ExpositionError, match=error):
        read_protobuf(family("h", HISTOGRAM, blob(7, content)), HistogramChoice(native=True))


def histogram_of(schema: int, buckets: dict[int, int]) -> NativeHistogram:
    spans, counts, end = [], [], 0
    for index, count in sorted(buckets.items()):
        spans.append((index - end, 1))
        counts.append(float(count))
        end = index + 1
    return NativeHistogram(
        count=sum(buckets.values()), schema=schema, positive_spans=spans, positive_counts=counts
    )


def expanded(histogram: NativeHistogram) -> dict[int, float]:
    found, index, values = {}, 0, iter(histogram.positive_counts)
    for offset, length in histogram.positive_spans:
        index += offset
        for _ in range(length):
            found[index] = next(values)
            index += 1
    return found


@given(
    st.integers(-3, 8),
    st.dictionaries(st.integers(-60, 60), st.integers(1, 9), min_size=1, max_size=30),
    st.integers(2, 20),
)
def test_the_bucket_limit_merges_neighbours_and_keeps_every_observation(
    schema: int, buckets: dict[int, int], limit: int
) -> None:
    try:
        limited = limit_schema(histogram_of(schema, buckets), limit, 0.0)
    except BucketLimitError:
        return
    assert len(limited.positive_counts) <= limit
    expected: dict[int, float] = {}
    for index, count in buckets.items():
        # The upper bound of bucket i is 2^(i * 2^-schema): find the bucket that holds it at the new schema.
        wide = math.ceil(index / 2 ** (schema - limited.schema))
        expected[wide] = expected.get(wide, 0) + count
    assert expanded(limited) == expected


def test_a_histogram_over_the_limit_fails_the_scrape_and_is_counted() -> None:
    registry = CollectorRegistry()
    options = SampleOptions(histograms=HistogramChoice(native=True, bucket_limit=1))
    samples = TargetSamples(FakeStore(), Labels(), options, ScrapeMetrics(registry))
    spread = integer(1, 2) + span(12, -500, 1) + span(12, 998, 1) + packed(13, [1, 0])
    body = family("h", HISTOGRAM, blob(7, spread))
    outcome = samples.store(Body(body, PROTOBUF), None, 1000, lambda: 0.1)
    assert outcome.error == "line 1: histogram bucket limit exceeded"
    name = "prometheus_target_scrapes_exceeded_native_histogram_bucket_limit_total"
    assert registry.get_sample_value(name) == 1


def test_schemas_above_eight_and_small_factors_are_widened() -> None:
    assert limit_schema(histogram_of(10, {1: 1}), 0, 0.0).schema == 8
    assert limit_schema(histogram_of(8, {1: 1}), 0, 1.5).schema == 0
    assert limit_schema(histogram_of(2, {1: 1}), 0, 1.1).schema == 2


BODY = (
    family("h", HISTOGRAM, label("a", "b") + blob(7, NATIVE + CLASSIC))
    + family("c", COUNTER, blob(3, double(1, 2) + blob(2, exemplar(1, None))))
    + family("s", SUMMARY, blob(4, integer(1, 1) + blob(3, double(1, 0.9) + double(2, 1))))
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_cut_and_changed_bodies_never_crash(data: st.DataObject) -> None:
    body = bytearray(BODY)
    for _ in range(data.draw(st.integers(0, 5))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    body = body[: data.draw(st.integers(0, len(body)))]
    with contextlib.suppress(ExpositionError):
        found = read_protobuf(bytes(body), HistogramChoice(native=True, classic=True))
        assert scan_body(found.text(), TEXT).count == len(found.lines)


def test_columns_of_floats_keep_their_order() -> None:
    store = FakeStore()
    options = SampleOptions(histograms=HistogramChoice(native=True))
    samples = TargetSamples(store, Labels(), options, ScrapeMetrics(CollectorRegistry()))
    parts = [family(f"g{n}", GAUGE, blob(2, double(1, n))) for n in range(4)]
    body = parts[0] + family("h", HISTOGRAM, blob(7, NATIVE)) + parts[1] + parts[2] + parts[3]
    for t in (1000, 2000):
        assert samples.store(Body(body, PROTOBUF), None, t, lambda: 0.1).error == ""
    assert [store.values(f"g{n}") for n in range(4)] == [[float(n)] * 2 for n in range(4)]
    assert np.concatenate([c.batch.t_ms for c in store.histograms]).tolist() == [1000, 2000]
