"""Samples in WAL records against the slow twin, and round trips of every kind of payload."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference import walcodec as twin
from tests.tsdb.stores import histograms
from tsdb.columns import Exemplar, HistogramColumns, Metadata
from tsdb.errors import CorruptionError
from tsdb.head import NewSeries
from tsdb.kernels import append as k
from tsdb.kernels import walvalues
from tsdb.kernels.admit import admit
from tsdb.kernels.walcodec import (
    BELOW_OLDEST,
    CODED_PADDING,
    KEY_BYTES_LIMIT,
    VALUE_BYTES_LIMIT,
    encode_samples,
    read_keys,
    replay_samples,
)
from tsdb.labels import Labels
from tsdb.select import STALE_BITS
from tsdb.symbols import SymbolTable
from tsdb.walrecords import (
    PayloadCodec,
    decode_exemplars,
    decode_histograms,
    decode_metadata,
    decode_series,
    decode_tombstones,
    encode_exemplars,
    encode_histograms,
    encode_metadata,
    encode_series,
    encode_tombstones,
)

SLOTS = 6
SEGMENT = 3


def bits_of(value: float) -> int:
    return int.from_bytes(struct.pack("<d", value), "little")


values = st.one_of(
    st.sampled_from([0, STALE_BITS, 1, 2**63, 2**64 - 1, bits_of(float("inf")), bits_of(float("nan"))]),
    st.integers(0, 2**64 - 1),
    st.integers(-(2**54), 2**54).map(lambda n: bits_of(float(n))),
    st.integers(-(10**10), 10**10).map(lambda n: bits_of(n / 1000)),
    st.integers(-(10**6), 10**6).map(lambda n: bits_of(n / 100)),
    st.floats(allow_nan=False, width=32).map(bits_of),
)
rows = st.lists(st.tuples(st.integers(1, SLOTS - 1), st.integers(1, 10**6), values), max_size=60)


def columns(samples):
    refs = np.array([s[0] for s in samples], dtype=np.uint32)
    t = np.array([s[1] for s in samples], dtype=np.int64)
    return refs, t, np.array([s[2] for s in samples], dtype=np.uint64)


class Rows:
    """Series rows of a small head."""

    def __init__(self) -> None:
        self.rows = np.zeros((SLOTS, k.ROW_WORDS), dtype=np.uint64)
        self.alive = np.ones(SLOTS, dtype=np.uint8)
        self.generation = np.zeros(SLOTS, dtype=np.uint8)
        self.orphans = np.zeros((SLOTS, 2), dtype=np.uint64)

    def admit(self, samples):
        refs, t, bits = columns(samples)
        rules = np.zeros(k.RULE_WORDS, dtype=np.int64)
        rules[k.RULE_SLOTS], rules[k.RULE_FUTURE] = SLOTS, 2**62
        rules[k.RULE_MIN_VALID], rules[k.RULE_HEAD_MAX] = -(2**62), 2**61
        codes, undo = np.zeros(len(refs), dtype=np.uint8), np.zeros((len(refs), 3), dtype=np.uint64)
        admit(refs, t, bits, self.alive, self.generation, self.rows, rules, codes, undo)
        return refs, t, bits, codes, undo

    def encode(self, samples) -> tuple[int, list[bytes]]:
        refs, t, bits, codes, undo = self.admit(samples)
        assert (codes == k.ACCEPTED).all()
        return encoded(refs, t, bits, codes, k.ACCEPTED, undo, self.rows)

    def decode(self, count: int, parts: list[bytes], oldest: int = -(2**62), late: bool = False):
        keys = np.frombuffer(b"".join(parts[:2]), dtype=np.uint8)
        refs, t = np.zeros(count, dtype=np.uint32), np.zeros(count, dtype=np.int64)
        bits, codes = np.zeros(count, dtype=np.uint64), np.zeros(count, dtype=np.uint8)
        if read_keys(keys, count, len(parts[0]), len(parts[1]), refs, t):
            return -1, [], codes
        kept = replay_samples(
            np.frombuffer(parts[2], dtype=np.uint8),
            np.array([[count, len(parts[2])]], dtype=np.int64),
            late,
            SEGMENT,
            oldest,
            SLOTS,
            self.alive,
            self.generation,
            self.rows,
            self.orphans,
            refs,
            t,
            bits,
            codes,
        )
        return kept, list(zip(refs.tolist(), t.tolist(), bits.tolist(), strict=True)), codes


def encoded(refs, t, bits, codes, wanted, undo, rows) -> tuple[int, list[bytes]]:
    keys = np.zeros(KEY_BYTES_LIMIT * len(refs), dtype=np.uint8)
    coded = np.zeros(VALUE_BYTES_LIMIT * len(refs) + CODED_PADDING, dtype=np.uint8)
    sizes = np.zeros(3, dtype=np.int64)
    count = encode_samples(refs, t, bits, codes, wanted, SEGMENT, undo, rows, keys, coded, sizes)
    a, b, c = sizes.tolist()
    return count, [keys[:a].tobytes(), keys[a : a + b].tobytes(), coded[:c].tobytes()]


def ascending(batches):
    """Times that grow over all batches, as the head accepts them."""
    t, out = 1_700_000_000_000, []
    for batch in batches:
        made = []
        for ref, step, bits in batch:
            t += step
            made.append((ref, t, bits))
        out.append(made)
    return out


@settings(max_examples=200, deadline=None)
@given(st.lists(rows, min_size=1, max_size=4))
def test_records_have_the_bytes_of_the_slow_encoder_and_decode_to_what_was_logged(batches):
    writer, reader, before = Rows(), Rows(), {}
    for samples in ascending(batches):
        count, parts = writer.encode(samples)
        assert count == len(samples)
        assert tuple(parts) == twin.encode(samples, before)
        kept, decoded, codes = reader.decode(count, parts)
        assert decoded == samples
        assert (kept, codes.tolist()) == (count, [k.ACCEPTED] * count)
    used = [k.LAST_T, k.META, k.LAST_V]
    assert reader.rows[:, used].tolist() == writer.rows[:, used].tolist()


@settings(max_examples=200, deadline=None)
@given(rows, st.data())
def test_a_damaged_payload_ends_in_an_error_or_samples_but_never_a_crash(samples, data):
    count, parts = Rows().encode(ascending([samples])[0])
    blob = bytearray(b"".join(parts))
    del blob[data.draw(st.integers(0, len(blob))) :]
    for _ in range(data.draw(st.integers(0, 3))):
        if blob:
            blob[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
    a = min(len(parts[0]), len(blob))
    b = min(len(parts[1]), len(blob) - a)
    kept, _, _ = Rows().decode(count, [bytes(blob[:a]), bytes(blob[a : a + b]), bytes(blob[a + b :])])
    assert -1 <= kept <= count


def test_samples_of_dead_series_and_of_old_times_are_decoded_but_not_stored():
    samples = [(1, 100, 5), (2, 101, 6), (1, 102, 7)]
    count, parts = Rows().encode(samples)
    reader = Rows()
    reader.alive[2] = 0
    kept, decoded, codes = reader.decode(count, parts, oldest=102)
    assert decoded[0] == samples[0]
    assert decoded[2] == samples[2]
    assert (kept, codes.tolist()) == (1, [BELOW_OLDEST, k.UNKNOWN_SERIES, k.ACCEPTED])


def unpacked(parts) -> np.ndarray:
    codec = PayloadCodec()
    return codec.unpack(np.frombuffer(codec.pack(parts)[0], dtype=np.uint8), codec.pack(parts)[1])


def test_series_come_back_with_their_labels_in_another_symbol_table():
    here, there = SymbolTable(), SymbolTable()
    there.intern("something else")
    ids = here.intern_many(["__name__", "m", "a", "ä\n", "__name__", "m"])
    new = NewSeries(np.array([7, 9], dtype=np.uint32), np.array([0, 2, 3]), ids)
    found = decode_series(unpacked(encode_series(new, here)), there)
    assert (found.refs.tolist(), found.offsets.tolist()) == ([7, 9], [0, 2, 3])
    assert there.texts(found.ids.tolist()) == ["__name__", "m", "a", "ä\n", "__name__", "m"]


def test_histograms_come_back_bit_for_bit():
    batch = histograms([1, 2, 3], is_float=True)
    batch.sum[1:2] = np.array([STALE_BITS], dtype=np.uint64).view(np.float64)
    found = decode_histograms(
        unpacked(encode_histograms(HistogramColumns(np.arange(3, dtype=np.uint32), batch)))
    )
    assert found.refs.tolist() == [0, 1, 2]
    for field in batch.__dataclass_fields__:
        left, right = getattr(batch, field), getattr(found.batch, field)
        if field != "row_offsets" and left is not None:
            assert left.tobytes() == right.tobytes(), field


def test_the_small_payloads_come_back():
    exemplars = [Exemplar(3, Labels((("trace", "x"),)), float("inf"), 5)]
    assert decode_exemplars(unpacked(encode_exemplars(exemplars))) == exemplars
    metadata = [Metadata("m", "counter", "help\n", "s")]
    assert decode_metadata(unpacked(encode_metadata(metadata))) == metadata
    refs, mint, maxt = decode_tombstones(
        unpacked(encode_tombstones(np.array([1, 2], dtype=np.uint32), -5, 2**62))
    )
    assert (refs.tolist(), mint, maxt) == ([1, 2], -5, 2**62)


@pytest.mark.parametrize("cut", [0, 5, 12, 30])
def test_a_short_series_payload_is_a_corruption(cut):
    symbols = SymbolTable()
    ids = symbols.intern_many(["__name__", "m"])
    new = NewSeries(np.array([7], dtype=np.uint32), np.array([0, 1]), ids)
    whole = b"".join(encode_series(new, symbols))
    with pytest.raises(CorruptionError):
        decode_series(np.frombuffer(whole[:cut], dtype=np.uint8), SymbolTable())


FAR = [0, 1, -1, 2**63 - 1, -(2**63), 2**62, -(2**62)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, SLOTS - 1), st.sampled_from(FAR), values), max_size=20))
def test_times_as_far_apart_as_they_can_be_come_back(samples):
    refs, t, bits = columns(samples)
    codes = np.full(len(refs), k.LATE, dtype=np.uint8)
    rows = Rows()
    undo = np.zeros((len(refs), 3), dtype=np.uint64)
    _, parts = encoded(refs, t, bits, codes, k.LATE, undo, rows.rows)
    _, found, _ = rows.decode(len(refs), parts, oldest=-(2**63), late=True)
    assert found == samples


@pytest.mark.parametrize("payload", [2**64 - 1, 2**64 - 2, 2**63])
@pytest.mark.parametrize("exponent", [0, 3, 7])
def test_a_damaged_difference_gives_some_value_and_no_crash(exponent, payload):
    rows = Rows()
    rows.rows[1, k.LAST_V] = bits_of(2.0**51)
    rows.rows[1, k.META] = (SEGMENT + 1) << walvalues.STAMP_SHIFT | k.HAS_SAMPLE
    text = "1" * 16 + f"{exponent:04b}"[::-1] + "000000" + f"{64:07b}"[::-1] + f"{payload:064b}"[::-1]
    assert rows.decode(1, [twin.varint(1), twin.varint(5), twin.to_bytes(text)])[0] == 1


# Series as they are scraped: the parameter settles, units change, a stale marker comes in between.
walks = st.builds(
    lambda start, steps, scale, stale: [
        STALE_BITS if at == stale else bits_of((start + sum(steps[:at])) * scale)
        for at in range(1, len(steps) + 1)
    ],
    st.integers(0, 10**9),
    st.lists(st.one_of(st.just(15), st.integers(-40, 400), st.integers(0, 10**7)), min_size=1, max_size=80),
    st.sampled_from([1.0, 0.01, 4096.0, 0.1234567]),
    st.integers(0, 200),
)


@settings(max_examples=150, deadline=None)
@given(walks)
def test_values_that_follow_each_other_are_coded_as_by_the_slow_coder(walk):
    writer, reader, states = Rows(), Rows(), {}
    for at, bits in enumerate(walk):
        samples = [(1, 1000 + at, bits)]
        count, parts = writer.encode(samples)
        assert tuple(parts) == twin.encode(samples, states)
        assert reader.decode(count, parts)[:2] == (1, samples)


def test_a_steady_counter_takes_a_byte_and_a_constant_one_bit():
    counter = [(1, 1000 + at, bits_of(1e9 + 150.0 * at + at % 7)) for at in range(200)]
    constant = [(2, 1000 + at, bits_of(0.25)) for at in range(200)]
    for samples, most in ((counter, 200), (constant, 32)):
        _, parts = Rows().encode(samples)
        assert len(parts[2]) <= most


def test_samples_of_a_series_whose_record_is_lost_do_not_keep_the_others_from_decoding():
    young = 2 | 1 << 24
    samples = [
        (1, 100, bits_of(5.0)),
        (2, 101, bits_of(1e6)),
        (1, 102, bits_of(7.0)),
        (2, 103, bits_of(1e6 + 9)),
    ]
    writer, reader = Rows(), Rows()
    reader.alive[2] = 0
    first = writer.encode(samples)
    assert reader.decode(*first)[1] == samples
    writer.generation[2] = 1
    writer.rows[2] = 0
    later = [(young, 200, bits_of(3.5)), (1, 201, bits_of(8.0)), (young, 202, bits_of(4.5))]
    second = writer.encode(later)
    kept, found, codes = reader.decode(*second)
    assert found == later
    assert (kept, codes.tolist()) == (1, [k.UNKNOWN_SERIES, k.ACCEPTED, k.UNKNOWN_SERIES])
