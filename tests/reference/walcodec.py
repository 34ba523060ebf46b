"""Slow, obvious twin of tsdb/kernels/walcodec.py."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

EXACT = 2**52
ESCAPE = 16
RAW = 7


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


def number_of(bits: int, exponent: int) -> int:
    """The value in units of 10^-exponent, rounded; 0 for what is too large."""
    scaled = to_float(bits) * 10.0**exponent
    return round(scaled) if abs(scaled) < EXACT else 0


def is_decimal(bits: int, exponent: int) -> bool:
    return to_bits(number_of(bits, exponent) / 10.0**exponent) == bits


def trailing_zeros(number: int) -> int:
    return (number & -number).bit_length() - 1 if number else 0


@dataclass
class State:
    """What the coder knows of a series."""

    value: int = 0
    exponent: int = 0
    shift: int = 0
    parameter: int = 0
    mean: float = 0.0

    @property
    def known(self) -> bool:
        return (self.exponent, self.shift, self.parameter, self.mean) != (0, 0, 0, 0.0)

    def follow(self, steps: int) -> None:
        """Move the mean on; 15 bits of its fraction are kept."""
        mean = self.mean + (float(steps) - self.mean) * 0.25
        self.mean = to_float(to_bits(mean) >> 37 << 37) if abs(mean) >= 2.0**-10 else 0.0


def code(state: State, bits: int) -> str:
    """The bits of one value, first one first; moves the state on."""
    text = _plain(state, bits) or _escaped(state, bits)
    state.value = bits
    return text


def low_bits(number: int, size: int) -> str:
    return f"{number:0{size}b}"[::-1] if size else ""


def _plain(state: State, bits: int) -> str:
    steps = 0
    if state.exponent == RAW:
        number = bits ^ state.value
        if number:
            size = abs(to_float(bits))
            probe = 6 if size < 4.0e9 else 2 if size < 4.0e13 else 0
            if is_decimal(bits, probe):
                return ""
        if number % 2**state.shift:
            return ""
        number >>= state.shift
    else:
        difference = number_of(bits, state.exponent) - number_of(state.value, state.exponent)
        if not is_decimal(bits, state.exponent) or difference % 2**state.shift:
            return ""
        steps = difference >> state.shift
        number = zigzag(steps - round(state.mean))
    low = state.parameter // 4
    quotient = number >> low
    if quotient >= ESCAPE:
        return ""
    if quotient == 0:
        state.parameter = max(state.parameter - 2, 0)
    elif quotient > 1:
        state.parameter = min(state.parameter + quotient, 224)
    if state.exponent == RAW:
        state.mean = 0.0
    else:
        state.follow(steps)
    return "1" * quotient + "0" + low_bits(number % 2**low, low)


def _escaped(state: State, bits: int) -> str:
    exponent = 0 if state.exponent == RAW else state.exponent
    while exponent < RAW and not is_decimal(bits, exponent):
        exponent += 1
    if exponent > 6:
        exponent = RAW
        number = bits ^ state.value
    else:
        number = number_of(bits, exponent) - number_of(state.value, exponent)
    shift = trailing_zeros(number)
    if state.known and exponent == state.exponent:
        shift = min(shift, state.shift) if number else 0
    payload = number >> shift if exponent == RAW else zigzag(number >> shift)
    size = payload.bit_length()
    if (exponent, shift) != (state.exponent, state.shift):
        state.mean = 0.0
    grown = 4 * size if exponent == RAW else min(state.parameter + 16, 4 * size)
    state.exponent, state.shift, state.parameter = exponent, shift, min(grown, 224)
    head = "1" * ESCAPE + low_bits(exponent, 4) + low_bits(shift, 6) + low_bits(size, 7)
    return head + low_bits(payload, size)


def to_bytes(text: str) -> bytes:
    size = (len(text) + 7) // 8
    return int(text[::-1] or "0", 2).to_bytes(size, "little")


def runs(differences: Sequence[int]) -> bytes:
    """Differences; what comes twice is followed by how often it comes again."""
    out, at = b"", 0
    while at < len(differences):
        end = at
        while end < len(differences) and differences[end] == differences[at]:
            end += 1
        out += varint(differences[at])
        if end - at > 1:
            out += varint(differences[at]) + varint(end - at - 2)
        at = end
    return out


def encode(samples: Sequence[tuple[int, int, int]], states: dict[int, State]) -> tuple[bytes, bytes, bytes]:
    """Samples are (ref, t_ms, value bits); `states` holds what is known of each ref and is moved on."""
    refs, times, values = [], [], ""
    last_ref = last_t = 0
    for ref, t, bits in samples:
        refs.append(ref - last_ref)
        times.append(t - last_t)
        last_ref, last_t = ref, t
        values += code(states.setdefault(ref, State()), bits)
    return runs(refs), runs(times), to_bytes(values)
