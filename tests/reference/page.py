"""Slow twin of the page decoder, written from docs/formats/block.md: plain integers, one value at a time."""

from __future__ import annotations

import struct

PREFIX, HEADER, PATCH, PADDING = 8, 35, 12, 8
MASK = (1 << 64) - 1


def _planes(raw: bytes, at: int, count: int, size: int) -> list[int]:
    return [sum(raw[at + p * count + i] << (8 * p) for p in range(size)) for i in range(count)]


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def _unzigzag(word: int) -> int:
    return (word >> 1) ^ -(word & 1)


def decode_page(raw: bytes, floats: bool) -> list[list[int]]:
    """Every stream of a decompressed page: bit patterns, or integers modulo 2^64."""
    streams, patches = struct.unpack_from("<II", raw)
    at = PREFIX
    counts = _planes(raw, at, streams, 4)
    forms, widths, exponents = (list(raw[at + (4 + k) * streams : at + (5 + k) * streams]) for k in range(3))
    bases, slopes, divisors = (_planes(raw, at + (7 + 8 * k) * streams, streams, 8) for k in range(3))
    patch_counts = _planes(raw, at + 31 * streams, streams, 4)
    at += HEADER * streams
    patch_index = _planes(raw, at, patches, 4)
    patch_bits = _planes(raw, at + 4 * patches, patches, 8)
    at += PATCH * patches
    words: list[list[int]] = [[0] * max(0, count - 1) for count in counts]
    for width in range(1, 9):
        mine = [k for k in range(streams) if widths[k] == width]
        for plane in range(width):
            for k in mine:
                for i in range(len(words[k])):
                    words[k][i] |= raw[at] << (8 * plane)
                    at += 1
    for k in range(streams):
        low = forms[k] >> 3
        size = (len(words[k]) * low + 7) // 8
        bits = int.from_bytes(raw[at : at + size], "little")
        words[k] = [(w << low) | (bits >> (i * low) & ((1 << low) - 1)) for i, w in enumerate(words[k])]
        at += size
    assert at + PADDING == len(raw)
    out, patch = [], 0
    for k in range(streams):
        mode, order = forms[k] & 1, forms[k] >> 1 & 3
        numbers = _stream(mode, order, words[k], bases[k], _signed(slopes[k]), divisors[k], exponents[k])
        numbers = numbers[: counts[k]]
        if mode == 0 and floats:
            numbers = [_float_bits(_signed(n), exponents[k]) for n in numbers]
        for _ in range(patch_counts[k]):
            numbers[patch_index[patch]] = patch_bits[patch]
            patch += 1
        out.append(numbers)
    return out


def _stream(
    mode: int, order: int, words: list[int], base: int, slope: int, divisor: int, exponent: int
) -> list[int]:
    numbers = [base]
    step = slope
    for word in words:
        if mode == 1:
            numbers.append((numbers[-1] ^ (word << exponent)) & MASK)
        elif order == 0:
            numbers.append((base + divisor * (slope + _unzigzag(word))) & MASK)
        elif order == 1:
            numbers.append((numbers[-1] + divisor * (slope + _unzigzag(word))) & MASK)
        else:
            step += _unzigzag(word)
            numbers.append((numbers[-1] + divisor * step) & MASK)
    return numbers


def _float_bits(number: int, exponent: int) -> int:
    off = 0
    if exponent & 16:
        number, rest = divmod(number, 3)
        off = rest - 1
    return (
        int(struct.unpack("<Q", struct.pack("<d", float(number) / 10.0 ** (exponent & 15)))[0]) + off
    ) & MASK
