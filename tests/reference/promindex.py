"""Slow twins of the readers of Prometheus's index entries, chunk frames and log samples, and writers."""

from __future__ import annotations

import struct

import google_crc32c

Pairs = list[tuple[int, int]]
ChunkMeta = tuple[int, int, int]
"""First timestamp, last timestamp, reference."""
MASK = (1 << 64) - 1


def uvarint(value: int) -> bytes:
    out = bytearray()
    value &= MASK
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def varint(value: int) -> bytes:
    return uvarint(value << 1 ^ value >> 63)


def take_uvarint(data: bytes, at: int) -> tuple[int, int]:
    """ValueError where the data ends, or after ten bytes."""
    value = 0
    for k in range(10):
        if at + k >= len(data):
            break
        value |= (data[at + k] & 0x7F) << (7 * k)
        if data[at + k] < 0x80:
            return value & MASK, at + k + 1
    raise ValueError("a number does not end")


def signed(raw: int) -> int:
    return raw >> 1 ^ -(raw & 1)


def wrap(value: int) -> int:
    value &= MASK
    return value - (1 << 64) if value >> 63 else value


def series_entry(pairs: Pairs, chunks: list[ChunkMeta]) -> bytes:
    """An entry of the series section."""
    body = uvarint(len(pairs)) + b"".join(uvarint(name) + uvarint(value) for name, value in pairs)
    body += uvarint(len(chunks))
    before, ref = 0, 0
    for k, (mint, maxt, chunk_ref) in enumerate(chunks):
        body += uvarint(mint - before) if k else varint(mint)
        body += uvarint(maxt - mint)
        body += varint(chunk_ref - ref) if k else uvarint(chunk_ref)
        before, ref = maxt, chunk_ref
    return uvarint(len(body)) + body + struct.pack(">I", google_crc32c.value(body))


def read_series_entry(data: bytes, at: int, symbol_count: int) -> tuple[Pairs, list[ChunkMeta]]:
    """ValueError for an entry that is damaged."""
    size, at = take_uvarint(data, at)
    body, crc = data[at : at + size], data[at + size : at + size + 4]
    if len(crc) < 4 or google_crc32c.value(body) != struct.unpack(">I", crc)[0]:
        raise ValueError("checksum")
    count, at = take_uvarint(body, 0)
    pairs: Pairs = []
    for _ in range(count):
        name, at = take_uvarint(body, at)
        value, at = take_uvarint(body, at)
        if max(name, value) >= symbol_count or (pairs and name <= pairs[-1][0]):
            raise ValueError("labels")
        pairs.append((name, value))
    count, at = take_uvarint(body, at)
    chunks: list[ChunkMeta] = []
    t = ref = 0
    for k in range(count):
        mint, at = take_uvarint(body, at)
        length, at = take_uvarint(body, at)
        change, at = take_uvarint(body, at)
        mint = wrap(t + mint) if k else signed(mint)
        t = wrap(mint + length)
        ref = wrap(ref + signed(change)) if k else wrap(change)
        chunks.append((mint, t, ref))
    return pairs, chunks


def chunk_frame(encoding: int, data: bytes) -> bytes:
    """A chunk as it lies in a segment."""
    framed = bytes([encoding]) + data
    return uvarint(len(data)) + framed + struct.pack(">I", google_crc32c.value(framed))


def samples_record(samples: list[tuple[int, int, int]]) -> bytes:
    """Ref, time and value bits as a record of the log, without its type."""
    if not samples:
        return b""
    ref, t, _ = samples[0]
    return struct.pack(">Qq", ref, t) + b"".join(
        varint(wrap(r - ref)) + varint(wrap(at - t)) + struct.pack(">Q", bits) for r, at, bits in samples
    )


def read_samples_record(data: bytes) -> list[tuple[int, int, int]]:
    """ValueError for a record that is damaged."""
    if not data:
        return []
    if len(data) < 16:
        raise ValueError("too short")
    ref, t = struct.unpack(">qq", data[:16])
    at, found = 16, []
    while at < len(data):
        change, at = take_uvarint(data, at)
        moved, at = take_uvarint(data, at)
        if at + 8 > len(data):
            raise ValueError("no value")
        bits = int.from_bytes(data[at : at + 8], "big")
        found.append((wrap(ref + signed(change)), wrap(t + signed(moved)), bits))
        at += 8
    return found
