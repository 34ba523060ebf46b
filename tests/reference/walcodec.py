"""Slow, obvious twin of tsdb/kernels/walcodec.py."""

from __future__ import annotations

import struct
from collections.abc import Sequence

EXACT = 2**53


def zigzag(value: int) -> int:
    return value * 2 if value >= 0 else -value * 2 - 1


def unzigzag(value: int) -> int:
    return value // 2 if value % 2 == 0 else -(value + 1) // 2


def varint(value: int) -> bytes:
    value = zigzag(value)
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def to_float(bits: int) -> float:
    return float(struct.unpack("<d", bits.to_bytes(8, "little"))[0])


def to_bits(value: float) -> int:
    return int.from_bytes(struct.pack("<d", value), "little")


def _number(tag: int, difference: int) -> bytes:
    raw = zigzag(difference)
    size = (raw.bit_length() + 7) // 8
    return bytes([tag + size]) + raw.to_bytes(size, "little")


def value_bytes(bits: int, before: int) -> bytes:
    """One value coded against the one before it."""
    if bits == before:
        return b"\x00"
    value, old = to_float(bits), to_float(before)
    if abs(value) < EXACT and abs(old) < EXACT:
        if to_bits(float(int(value))) == bits and int(old) == old:
            return _number(0x10, int(value) - int(old))
        if abs(value) < 1e12 and abs(old) < 1e12:
            milli, old_milli = round(value * 1000.0), round(old * 1000.0)
            if to_bits(milli / 1000.0) == bits:
                return _number(0x20, milli - old_milli)
    xor = (bits ^ before).to_bytes(8, "little")
    trail = len(xor) - len(xor.lstrip(b"\0"))
    lead = len(xor) - len(xor.rstrip(b"\0"))
    return bytes([0x80 | lead << 3 | trail]) + xor[trail : 8 - lead]


def encode(samples: Sequence[tuple[int, int, int]], before: dict[int, int]) -> tuple[bytes, bytes, bytes]:
    """Samples are (ref, t_ms, value bits); `before` holds each ref's last value and is moved on."""
    refs, times, values = b"", b"", b""
    last_ref = last_t = 0
    for ref, t, bits in samples:
        refs += varint(ref - last_ref)
        times += varint(t - last_t)
        last_ref, last_t = ref, t
        values += value_bytes(bits, before.get(ref, 0))
        before[ref] = bits
    return refs, times, values
