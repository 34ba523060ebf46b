"""Slow twin of the decoders of Prometheus's chunks: a string of bits, one field after the other.

Written from Prometheus's tsdb/docs/format/chunks.md. ValueError for damage.
"""

from __future__ import annotations

import struct

from tests.tsdb.memoryselection import FloatSample, HistogramSample, bits_of

STALE = 0x7FF0000000000002
SIZES = (0, 3, 6, 9, 12, 18, 25, 56, 64)
MASK = (1 << 64) - 1
INDEX_LIMIT = 1 << 31


def signed(value: int, size: int = 64) -> int:
    return value - (1 << size) if value >= 1 << (size - 1) else value


def float_of(bits: int) -> float:
    return float(struct.unpack("<d", struct.pack("<Q", bits & MASK))[0])


class Bits:
    """A reader of bits, most significant first."""

    def __init__(self, data: bytes) -> None:
        self.text = "".join(f"{byte:08b}" for byte in data)
        self.at = 0

    @property
    def left(self) -> int:
        return len(self.text) - self.at

    def take(self, size: int) -> int:
        if self.left < size:
            raise ValueError("the chunk ends in a field")
        self.at += size
        return int(self.text[self.at - size : self.at] or "0", 2)

    def ones(self, limit: int) -> int:
        for k in range(limit):
            if not self.take(1):
                return k
        return limit

    def uvarint(self) -> int:
        value = 0
        for k in range(10):
            byte = self.take(8)
            value |= (byte & 0x7F) << (7 * k)
            if byte < 0x80:
                break
        return value & MASK

    def varint(self) -> int:
        raw = self.uvarint()
        return raw >> 1 ^ -(raw & 1)

    def varbit_uint(self) -> int:
        return self.take(SIZES[self.ones(8)])

    def signed(self, size: int) -> int:
        """Of n bits -(2^(n-1) - 1) .. 2^(n-1); of 64 as usual."""
        value = self.take(size)
        if size == 64:
            return signed(value)
        return value - (1 << size) if size and value > 1 << (size - 1) else value

    def varbit_int(self) -> int:
        return self.signed(SIZES[self.ones(8)])


class Xor:
    """A value that is kept as xors with the one before."""

    def __init__(self, bits: Bits) -> None:
        self.bits, self.value = bits, 0
        self.window: tuple[int, int] | None = None

    def same_window(self) -> None:
        if self.window is None:
            raise ValueError("no window yet")
        size, trail = self.window
        self.value ^= self.bits.take(size) << trail

    def new_window(self) -> None:
        lead, size = self.bits.take(5), self.bits.take(6) or 64
        if lead + size > 64:
            raise ValueError("a window of more than 64 bits")
        self.window = size, 64 - lead - size
        self.same_window()

    def first(self) -> int:
        self.value = self.bits.take(64)
        return self.value

    def next(self) -> int:
        kind = self.bits.ones(2)
        if kind == 1:
            self.same_window()
        elif kind == 2:
            self.new_window()
        return self.value

    def next_xor2(self) -> int:
        kind = self.bits.ones(3)
        if kind == 3:
            return STALE
        if kind == 1:
            self.same_window()
        elif kind == 2:
            self.new_window()
        return self.value


def wrap(value: int) -> int:
    return signed(value & MASK)


class Starts:
    """Start timestamps after samples."""

    def __init__(self, bits: Bits, header: int) -> None:
        self.bits, self.header = bits, header
        self.start = self.diff = 0

    def after(self, i: int, t: int, before: int) -> int:
        changed_on = self.header & 0x7F
        if i == 0:
            if self.header & 0x80:
                self.start = wrap(t - self.bits.varint())
        elif changed_on and i >= changed_on:
            change = self.bits.varbit_int()
            self.diff = wrap(change + (self.diff if i > changed_on else 0))
            self.start = wrap(before - self.diff)
        return self.start


def decode_floats(encoding: int, data: bytes) -> list[FloatSample]:
    return _xor(data) if encoding == 1 else _xor2(data)


def _xor(data: bytes) -> list[FloatSample]:
    bits = Bits(data)
    count = bits.take(16)
    value, t, delta, out = Xor(bits), 0, 0, []
    for i in range(count):
        if i == 0:
            t = bits.varint()
            out.append(FloatSample(t, value.first()))
            continue
        if i == 1:
            delta = wrap(bits.uvarint())
        else:
            delta = wrap(delta + bits.signed((0, 14, 17, 20, 64)[bits.ones(4)]))
        t = wrap(t + delta)
        out.append(FloatSample(t, value.next()))
    return out


def _xor2(data: bytes) -> list[FloatSample]:
    bits = Bits(data)
    count, starts = bits.take(16), Starts(bits, bits.take(8))
    value, t, delta, out = Xor(bits), 0, 0, []
    for i in range(count):
        before = t
        if i == 0:
            t = bits.varint()
            sample = value.first()
            if sample == STALE:
                value.value = 0
        elif i == 1:
            delta = wrap(bits.uvarint())
            t = wrap(t + delta)
            sample = value.next_xor2()
        else:
            kind = bits.ones(5)
            sample = value.value
            if kind == 5:
                sample = STALE
            elif kind == 1:
                value.new_window() if bits.take(1) else value.same_window()
                sample = value.value
            elif kind:
                size = {2: 13, 3: 20, 4: 64}[kind]
                delta = wrap(delta + signed(bits.take(size), size))
                sample = value.next_xor2()
            t = wrap(t + delta)
        out.append(FloatSample(t, sample, starts.after(i, t, before)))
    return out


def _spans(bits: Bits) -> list[int]:
    index, out = 0, []
    number = bits.varbit_uint()
    if number > bits.left:
        raise ValueError("too many spans")
    for k in range(number):
        length, offset = bits.varbit_uint(), bits.varbit_int()
        if (k and offset < 0) or abs(offset) >= INDEX_LIMIT or len(out) + length > bits.left:
            raise ValueError("a span that cannot be")
        index += offset
        if index + length >= INDEX_LIMIT or index < -INDEX_LIMIT:
            raise ValueError("a bucket that cannot be")
        out.extend(range(index, index + length))
        index += length
    return out


def _customs(bits: Bits) -> tuple[int, ...]:
    out = []
    number = bits.varbit_uint()
    if number > bits.left:
        raise ValueError("too many custom bounds")
    for _ in range(number):
        code = bits.varbit_uint()
        out.append(bits_of((code - 1) / 1000) if code else bits.take(64))
    return tuple(out)


class Dod:
    """An integer kept as delta of deltas."""

    def __init__(self, bits: Bits, unsigned: bool = False) -> None:
        self.bits, self.unsigned = bits, unsigned
        self.value = self.delta = 0

    def next(self, i: int) -> int:
        if i == 0:
            self.value = wrap(self.bits.varbit_uint()) if self.unsigned else self.bits.varbit_int()
        else:
            self.delta = wrap(self.delta + self.bits.varbit_int())
            self.value = wrap(self.value + self.delta)
        return self.value


def decode_histograms(encoding: int, data: bytes) -> list[HistogramSample]:
    is_float, with_start = encoding in (3, 6), encoding in (5, 6)
    bits = Bits(data)
    count = bits.take(16)
    flags = bits.take(8)
    header = count >> 14 if with_start else flags >> 6
    starts = Starts(bits, flags if with_start else 0)
    count &= 0x3FFF if with_start else 0xFFFF
    code = bits.take(8)
    threshold = bits.take(64) if code == 255 else (code + 1023 - 244) << 52 if code else 0
    schema = bits.varbit_int()
    if schema != -53 and not -4 <= schema <= 8:
        raise ValueError("unknown schema")
    pos, neg = _spans(bits), _spans(bits)
    custom = _customs(bits) if schema == -53 else ()
    t, total = Dod(bits), Xor(bits)
    numbers = [Xor(bits) if is_float else Dod(bits, unsigned=True) for _ in range(2)]
    buckets = [Xor(bits) if is_float else Dod(bits) for _ in (*pos, *neg)]
    out = []

    def read(field: Xor | Dod, i: int) -> int:
        if isinstance(field, Dod):
            return field.next(i)
        return field.first() if i == 0 else field.next()

    for i in range(count):
        before = t.value
        t.next(i)
        sizes = [read(field, i) for field in numbers]
        sum_bits = read(total, i)
        counts = [] if i and sum_bits == STALE else [read(bucket, i) for bucket in buckets]
        start = starts.after(i, t.value, before)
        if sum_bits == STALE:
            out.append(HistogramSample(t.value, start, 0, 0, 0, 0, 0, STALE, int(is_float), (), (), ()))
            continue
        if not is_float:
            sizes = [bits_of(float(size & MASK)) for size in sizes]
            counts = [*_absolute(counts[: len(pos)]), *_absolute(counts[len(pos) :])]
        hint = 3 if header == 3 else 2 if i else 0
        out.append(
            HistogramSample(
                *(t.value, start, schema, hint, threshold, sizes[1], sizes[0], sum_bits, int(is_float)),
                tuple(zip(pos, counts[: len(pos)], strict=True)),
                tuple(zip(neg, counts[len(pos) :], strict=True)),
                custom,
            )
        )
    return out


def _absolute(deltas: list[int]) -> list[int]:
    out, current = [], 0
    for delta in deltas:
        current = wrap(current + delta)
        out.append(bits_of(float(current)))
    return out
