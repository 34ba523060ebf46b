"""Names of blocks: 48 bits of milliseconds and 80 random bits in 26 letters, so that names sort by time."""

from __future__ import annotations

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
ULID_LENGTH = 26


def make_ulid(now_ms: int, entropy: bytes) -> str:
    """A ULID of a time and ten random bytes."""
    number = (now_ms & ((1 << 48) - 1)) << 80 | int.from_bytes(entropy[:10], "big")
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def is_ulid(name: str) -> bool:
    """Whether a directory name is that of a block."""
    return len(name) == ULID_LENGTH and name[0] <= "7" and all(char in _ALPHABET for char in name)
