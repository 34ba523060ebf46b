"""Slow twin of tsdb/kernels/hashing.py with Python's integers."""

from __future__ import annotations

MASK = 2**64 - 1
K0, K1 = 0xA0761D6478BD642F, 0xE7037ED1A0B428DB
K2, K3 = 0x8EBC6AF09C88C6E3, 0x589965CC75374CC3


def fold(left: int, right: int) -> int:
    product = left * right
    return (product & MASK) ^ (product >> 64)


def hash_region(data: bytes, seed0: int, seed1: int) -> tuple[int, int]:
    pair, other = [seed0 ^ K0, seed1 ^ K1], [seed0 ^ K2, seed1 ^ K3]
    key0, key1 = fold(seed0 ^ K2, K3), fold(seed1 ^ K3, K2)

    def word(at: int, size: int = 8) -> int:
        return int.from_bytes(data[at : at + size], "little")

    def mix(lanes: list[int], left: int, right: int) -> None:
        lanes[:] = fold(left ^ key0, right ^ lanes[0]), fold(right ^ key1, left ^ lanes[1])

    size, at = len(data), 0
    while at + 32 < size:
        for lanes, start in ((pair, at), (other, at + 16)):
            mix(lanes, word(start), word(start + 8))
        at += 32
    pair = [mine ^ its for mine, its in zip(pair, other, strict=True)]
    if at + 16 < size:
        mix(pair, word(at), word(at + 8))
    if size >= 16:
        mix(pair, word(size - 16), word(size - 8))
    elif size >= 8:
        mix(pair, word(0), word(size - 8))
    elif size >= 4:
        mix(pair, word(0, 4), word(size - 4, 4))
    else:
        mix(pair, int.from_bytes(data, "big"), 0)
    lane0, lane1 = fold(pair[0] ^ K1, size ^ key0), fold(pair[1] ^ K0, size ^ key1)
    return lane0 or 1, lane1
