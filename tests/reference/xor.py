"""Slow, obvious twin of tsdb/kernels/xor.py: bits as a Python string of 0 and 1."""

from __future__ import annotations

from collections.abc import Sequence


def _uvarint(value: int) -> str:
    out = ""
    while value >= 0x80:
        out += format(value & 0x7F | 0x80, "08b")
        value >>= 7
    return out + format(value, "08b")


def _delta_of_delta(dod: int) -> str:
    if dod == 0:
        return "0"
    for prefix, bits in (("10", 14), ("110", 17), ("1110", 20)):
        if -(2 ** (bits - 1) - 1) <= dod <= 2 ** (bits - 1):
            return prefix + format(dod % 2**bits, f"0{bits}b")
    return "1111" + format(dod % 2**64, "064b")


def encode_chunk(samples: Sequence[tuple[int, int]]) -> bytes:
    """Samples are (t_ms, value bits)."""
    out = format(len(samples), "016b")
    window: tuple[int, int] | None = None
    delta = 0
    for i, (t, value) in enumerate(samples):
        if i == 0:
            out += _uvarint(t * 2 if t >= 0 else -t * 2 - 1) + format(value, "064b")
            continue
        new_delta = t - samples[i - 1][0]
        out += _uvarint(new_delta) if i == 1 else _delta_of_delta(new_delta - delta)
        delta = new_delta
        xor = value ^ samples[i - 1][1]
        if xor == 0:
            out += "0"
            continue
        text = format(xor, "064b")
        lead = min(len(text) - len(text.lstrip("0")), 31)
        trail = len(text) - len(text.rstrip("0"))
        if window is not None and lead >= window[0] and trail >= window[1]:
            out += "10" + text[window[0] : 64 - window[1]]
        else:
            window = (lead, trail)
            size = 64 - lead - trail
            out += "11" + format(lead, "05b") + format(size % 64, "06b") + text[lead : 64 - trail]
    out += "0" * (-len(out) % 8)
    return bytes(int(out[i : i + 8], 2) for i in range(0, len(out), 8))
