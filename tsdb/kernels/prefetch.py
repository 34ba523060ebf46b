"""Asking for a cache line before it is needed: trips to memory that do not wait for each other.

Samples of a batch are of different series, so that each one's row, and the open chunk where that says, are
lines of their own. Out of range is allowed: the processor ignores what it cannot read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tsdb.kernels.bits import Generator, Word

_BYTE, _WORD32 = ir.IntType(8), ir.IntType(32)
_FOR_WRITING, _KEEP, _DATA = 1, 3, 1


def _prefetch(typing_context: Any, array: Any, position: Any) -> Generator:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        place = builder.gep(builder.bitcast(data, _BYTE.as_pointer()), [args[1]])
        kind = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), _WORD32, _WORD32, _WORD32])
        ask = builder.module.declare_intrinsic("llvm.prefetch", [_BYTE.as_pointer()], kind)
        builder.call(ask, [place, *(ir.Constant(_WORD32, n) for n in (_FOR_WRITING, _KEEP, _DATA))])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


prefetch = cast(Callable[[npt.NDArray[np.generic], Word], None], intrinsic(_prefetch))
"""Ask for the cache line of a byte position of an array, to be read and written."""
