"""Machine instructions that numba has no spelling for, as it takes them: typed, and written in LLVM's terms.

Nothing is checked here; what each does is said where it gets its name (tsdb/kernels/bits.py,
promql/kernels/decimal.py, tsdb/kernels/prefetch.py). Imports numba, so only `Instruction` imports it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

Generator = tuple[Any, Callable[..., Any]]

_WORD64 = ir.IntType(64)
_WORD32 = ir.IntType(32)
_BYTE = ir.IntType(8)
_FOR_WRITING, _KEEP, _DATA = 1, 3, 1


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


def _multiply_high(typing_context: Any, left: Any, right: Any) -> Generator:
    wide = ir.IntType(128)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        product = builder.mul(builder.zext(args[0], wide), builder.zext(args[1], wide))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), _WORD64)

    return types.uint64(types.uint64, types.uint64), generate


def _prefetch(typing_context: Any, array: Any, position: Any) -> Generator:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        place = builder.gep(builder.bitcast(data, _BYTE.as_pointer()), [args[1]])
        kind = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), _WORD32, _WORD32, _WORD32])
        ask = builder.module.declare_intrinsic("llvm.prefetch", [_BYTE.as_pointer()], kind)
        builder.call(ask, [place, *(ir.Constant(_WORD32, n) for n in (_FOR_WRITING, _KEEP, _DATA))])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


load64 = intrinsic(_load64)
load32 = intrinsic(_load32)
store64 = intrinsic(_store64)
swap64 = intrinsic(_swap64)
leading_zeros64 = intrinsic(_leading_zeros64)
trailing_zeros64 = intrinsic(_trailing_zeros64)
fold_multiply = intrinsic(_fold_multiply)
float_bits = intrinsic(_float_bits)
bits_float = intrinsic(_bits_float)
multiply_high = intrinsic(_multiply_high)
prefetch = intrinsic(_prefetch)
