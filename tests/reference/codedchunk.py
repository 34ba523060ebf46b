"""Slow, obvious twin of tsdb/kernels/codedchunk.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tests.reference import walcodec


def _packed_mean(mean: float) -> int:
    """22 bits: sign, 6 bits of exponent above -11, 15 of the fraction."""
    if mean == 0.0:
        return 0
    bits = walcodec.to_bits(mean)
    return (bits >> 63) << 21 | ((bits & (1 << 63) - 1) >> 37) - (1012 << 15)


def encode_chunk(samples: Sequence[tuple[int, int]], before: walcodec.State) -> bytes:
    """Samples are (t_ms, value bits), in rising order; `before` is what is known, and is left alone."""
    state = replace(before)
    steps = [samples[i][0] - samples[i - 1][0] for i in range(1, len(samples))]
    least = min(steps, default=0)
    width = max((step - least for step in steps), default=0).bit_length()
    times = "".join(walcodec.low_bits(step - least, width) for step in steps)
    known = state.parameter | state.exponent << 8 | state.shift << 12 | _packed_mean(state.mean) << 18
    values = "".join(walcodec.code(state, bits) for _, bits in samples)
    head = bytes([0x80, len(samples), width]) + (samples[0][0] % 2**64).to_bytes(8, "little")
    head += before.value.to_bytes(8, "little") + known.to_bytes(5, "little") + least.to_bytes(4, "little")
    return head + walcodec.to_bytes(times) + walcodec.to_bytes(values)
