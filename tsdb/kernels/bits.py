"""Machine words in byte arrays: unaligned loads and stores, byte swap, leading and trailing zeros, folded
multiply.

Inputs are uint8 arrays and byte positions; nothing is checked here, the caller has tested that eight (or
four) bytes are there. Unaligned 8-byte loads made the remote-write decode 2.3 times faster than bytewise ones
(engine.md 2.1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

U8Array = npt.NDArray[np.uint8]
Word: TypeAlias = Any
"""A numpy scalar inside a kernel: numba types it, mypy's rules for mixed integers do not apply."""

Generator = tuple[Any, Callable[..., Any]]

_WORD64 = ir.IntType(64)
_WORD32 = ir.IntType(32)


def _pointer(context: Any, builder: Any, signature: Any, args: Any, word: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, args[0])
    return builder.bitcast(builder.gep(array.data, [args[1]]), word.as_pointer())


def _load64(typing_context: Any, buffer: Any, position: Any) -> Generator:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_pointer(context, builder, signature, args, _WORD64), align=1, typ=_WORD64)

    return types.uint64(buffer, types.int64), generate


def _load32(typing_context: Any, buffer: Any, position: Any) -> Generator:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_pointer(context, builder, signature, args, _WORD32), align=1, typ=_WORD32)

    return types.uint32(buffer, types.int64), generate


def _store64(typing_context: Any, buffer: Any, position: Any, word: Any) -> Generator:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _pointer(context, builder, signature, args, _WORD64), align=1)
        return context.get_dummy_value()

    return types.void(buffer, types.int64, types.uint64), generate


def _swap64(typing_context: Any, word: Any) -> Generator:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bswap(args[0])

    return types.uint64(types.uint64), generate


def _leading_zeros64(typing_context: Any, word: Any) -> Generator:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate


def _trailing_zeros64(typing_context: Any, word: Any) -> Generator:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate


def _fold_multiply(typing_context: Any, left: Any, right: Any) -> Generator:
    wide = ir.IntType(128)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        product = builder.mul(builder.zext(args[0], wide), builder.zext(args[1], wide))
        high = builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), _WORD64)
        return builder.xor(builder.trunc(product, _WORD64), high)

    return types.uint64(types.uint64, types.uint64), generate


def _float_bits(typing_context: Any, value: Any) -> Generator:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], _WORD64)

    return types.uint64(types.float64), generate


def _bits_float(typing_context: Any, word: Any) -> Generator:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.uint64), generate


load64 = cast(Callable[[U8Array, Word], Word], intrinsic(_load64))
"""uint64 at a byte position, little-endian, any alignment."""

load32 = cast(Callable[[U8Array, Word], Word], intrinsic(_load32))
"""uint32 at a byte position, little-endian, any alignment."""

store64 = cast(Callable[[U8Array, Word, Word], None], intrinsic(_store64))
"""Write a uint64 at a byte position, little-endian, any alignment."""

swap64 = cast(Callable[[Word], Word], intrinsic(_swap64))
"""The eight bytes of a uint64 in reverse."""

leading_zeros64 = cast(Callable[[Word], Word], intrinsic(_leading_zeros64))
"""Leading zero bits of a uint64; 64 for zero."""

trailing_zeros64 = cast(Callable[[Word], Word], intrinsic(_trailing_zeros64))
"""Trailing zero bits of a uint64; 64 for zero."""

fold_multiply = cast(Callable[[Word, Word], Word], intrinsic(_fold_multiply))
"""Low half xor high half of the 128-bit product of two uint64."""

float_bits = cast(Callable[[Word], Word], intrinsic(_float_bits))
"""The uint64 bits of a float64, without arithmetic."""

bits_float = cast(Callable[[Word], Word], intrinsic(_bits_float))
"""The float64 of uint64 bits, without arithmetic."""
