"""What we send, read back by the receiver: version 2, version 1 made from it, and version 1 at once."""

from __future__ import annotations

import dataclasses
import math
import struct

import cramjam
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from ingest.remotewrite.downgrade import to_version_1
from ingest.remotewrite.encode import EncodedRequest, encode_requests
from ingest.remotewrite.encode1 import encode_metadata_v1, encode_requests_v1, label_bytes
from ingest.remotewrite.nativehistogram import NativeHistogram, to_batch
from ingest.remotewrite.receiver import Receiver, RemoteWriteLimits
from tests.ingest.memoryappender import NOW_MS, MemoryAppender
from tsdb.columns import Exemplar, HistogramColumns, Metadata, SampleColumns, WriteBatch
from tsdb.labels import Labels
from tsdb.select import STALE_BITS
from tsdb.series import SeriesTable
from tsdb.symbols import SymbolTable

CONTENT_TYPES = {
    1: "application/x-protobuf",
    2: "application/x-protobuf;proto=io.prometheus.write.v2.Request",
}
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)
LABELS = st.dictionaries(TEXTS, TEXTS, max_size=3).map(lambda d: Labels.from_dict({**d, "__name__": "m"}))
BITS = st.one_of(
    st.just(STALE_BITS),
    st.floats().map(lambda value: struct.unpack("<Q", struct.pack("<d", value))[0]),
)


WAYS = ["2", "1 from 2", "1"]


def encoded(
    batch: WriteBatch, rows: list[Labels], due: dict[str, Metadata], per_request: int, way: str
) -> list[EncodedRequest]:
    """Requests of a batch; what is in `due` goes with its series, or alone in version 1."""
    if way != "1":
        return list(encode_requests(batch, rows.__getitem__, due, per_request))
    requests = list(encode_requests_v1(batch, lambda ref: label_bytes(rows[ref]), per_request))
    entries = [due.pop(name) for name in list(due) if name != "absent"]
    described = [EncodedRequest(encode_metadata_v1(entries), 0, 0)] if entries else []
    return requests + described


async def received(messages: list[bytes], way: str) -> MemoryAppender:
    store = MemoryAppender()
    table = SeriesTable(SymbolTable(), (1, 2), series_limit=4096)
    receiver = Receiver(store, table, RemoteWriteLimits(), CollectorRegistry(), threads=1)
    for message in messages:
        body = bytes(cramjam.snappy.compress_raw(to_version_1(message) if way == "1 from 2" else message))
        status, _, text = await receiver.handle(body, {"Content-Type": CONTENT_TYPES[int(way[0])]})
        assert status == 204, text
    receiver.close()
    return store


def columns(refs: list[int], times: list[int], bits: list[int]) -> SampleColumns:
    values = np.array(bits, np.uint64).view(np.float64)
    return SampleColumns(np.array(refs, np.uint32), np.array(times, np.int64), values)


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
async def test_samples_arrive_bit_for_bit(way: str, data: st.DataObject) -> None:
    rows = data.draw(st.lists(LABELS, min_size=1, max_size=4, unique=True))
    picks = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=12))
    bits = [data.draw(BITS) for _ in picks]
    times = [NOW_MS - 1000 + at for at in range(len(picks))]
    per_request = data.draw(st.integers(1, 5))
    batch = WriteBatch(columns(picks, times, bits))
    requests = encoded(batch, rows, {}, per_request, way)
    assert [r.sample_count for r in requests][:-1] == [per_request] * (len(requests) - 1)
    store = await received([request.message for request in requests], way)
    expected: dict[Labels, dict[int, int]] = {}
    for ref, t_ms, value in zip(picks, times, bits, strict=True):
        expected.setdefault(rows[ref], {})[t_ms] = value
    assert {labels: found for labels, found in store.samples.items() if found} == expected


HISTOGRAMS = [
    NativeHistogram(
        count=11,
        sum_bits=struct.unpack("<Q", struct.pack("<d", 2.5))[0],
        schema=3,
        zero_threshold=0.001,
        zero_count=1,
        reset_hint=2,
        t_ms=NOW_MS,
        start_t_ms=0,
        negative_spans=[(-7, 2)],
        negative_counts=[1, 2],
        positive_spans=[(-2, 2), (3, 1)],
        positive_counts=[4, 1, 2],
    ),
    NativeHistogram(
        count=3.5,
        is_float=True,
        sum_bits=STALE_BITS,
        schema=-53,
        t_ms=NOW_MS,
        positive_spans=[(0, 3)],
        positive_counts=[1.5, 0.0, 2.0],
        custom_values=[0.5, math.pi],
    ),
]


@pytest.mark.parametrize("way", WAYS)
async def test_histograms_arrive_whole(way: str) -> None:
    rows = [Labels.from_dict({"__name__": f"h{n}"}) for n in range(len(HISTOGRAMS))]
    batch = to_batch(HISTOGRAMS, with_start_t=False)
    sent = WriteBatch(histograms=HistogramColumns(np.arange(len(rows), dtype=np.uint32), batch))
    (request,) = encoded(sent, rows, {}, 100, way)
    store = await received([request.message], way)
    arrived = store.batches[-1].histograms
    assert arrived is not None
    assert [store.series[ref] for ref in arrived.refs.tolist()] == rows
    for field in dataclasses.fields(batch):
        before, after = getattr(batch, field.name), getattr(arrived.batch, field.name)
        if field.name not in ("start_t_ms", "row_offsets"):
            assert before.tobytes() == after.tobytes(), field.name


@pytest.mark.parametrize("way", WAYS)
async def test_metadata_and_exemplars_go_with_their_series(way: str) -> None:
    rows = [Labels.from_dict({"__name__": "hits_total", "job": "a"}), Labels.from_dict({"__name__": "other"})]
    exemplar = Exemplar(0, Labels.from_dict({"trace_id": "abc"}), 4.5, NOW_MS)
    due = {
        "hits_total": Metadata("hits_total", "counter", "Hits.", "hits"),
        "absent": Metadata("absent", "gauge", "", ""),
    }
    batch = WriteBatch(columns([0, 1], [NOW_MS, NOW_MS], [0, 0]), exemplars=[exemplar])
    requests = encoded(batch, rows, due, 100, way)
    assert list(due) == ["absent"]
    assert requests[0].sample_count == 2
    store = await received([request.message for request in requests], way)
    (found,) = (exemplar for arrived in store.batches for exemplar in arrived.exemplars)
    assert store.series[found.ref] == rows[0]
    assert (found.labels, found.value, found.t_ms) == (exemplar.labels, 4.5, NOW_MS)
    assert [entry for arrived in store.batches for entry in arrived.metadata] == [
        Metadata("hits_total", "counter", "Hits.", "hits")
    ]
