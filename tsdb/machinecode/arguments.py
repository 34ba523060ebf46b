"""What a kernel's arguments must be, and the close look at those that are not plainly so.

Guards (tsdb/machinecode/guard.py) let through what needs no thought; what they do not let through comes here
and is either good after all or a TypeError. What is tested of an array is what the signature promises: dtype,
dimensions, C order and alignment, and that it may be written to unless the signature says read-only.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np


@dataclass(frozen=True, slots=True)
class ArrayParameter:
    """What an array must be."""

    dtype: str
    dimensions: int
    mutable: bool


Parameter: TypeAlias = "ArrayParameter | tuple[Parameter, ...] | None"
"""An array, a tuple of parameters, or None for a number, which the machine code's wrapper converts."""


def to_plain(parameter: Parameter) -> Any:
    """As JSON has it."""
    if isinstance(parameter, ArrayParameter):
        return {"dtype": parameter.dtype, "dimensions": parameter.dimensions, "mutable": parameter.mutable}
    return None if parameter is None else [to_plain(each) for each in parameter]


def from_plain(plain: Any) -> Parameter:
    """Raises TypeError or KeyError for what `to_plain` did not make."""
    if isinstance(plain, dict):
        return ArrayParameter(plain["dtype"], plain["dimensions"], plain["mutable"])
    return None if plain is None else tuple(from_plain(each) for each in plain)


def checked(entry: Callable[..., Any], name: str, parameters: Sequence[Parameter]) -> Callable[..., Any]:
    """`entry` of the kernel of this full name, behind a look at its arguments; it raises TypeError."""
    module, _, short = name.rpartition(".")

    def look(*arguments: Any, **keywords: Any) -> Any:
        if keywords:
            kernel = getattr(importlib.import_module(module), short)
            arguments = inspect.signature(kernel).bind(*arguments, **keywords).args
        if not _suits(arguments, tuple(parameters)):
            wanted = ", ".join(_described(each) for each in parameters)
            given = ", ".join(_given(each) for each in arguments)
            raise TypeError(f"No matching definition for {short}({wanted}): given ({given})")
        return entry(*arguments)

    return look


def _suits(argument: Any, parameter: Parameter) -> bool:
    if parameter is None:
        return isinstance(argument, int | float | np.integer | np.floating | np.bool_)
    if isinstance(parameter, tuple):
        return (
            isinstance(argument, tuple)
            and len(argument) == len(parameter)
            and all(map(_suits, argument, parameter))
        )
    return (
        isinstance(argument, np.ndarray)
        and argument.dtype == parameter.dtype
        and argument.ndim == parameter.dimensions
        and argument.flags.c_contiguous
        and argument.flags.aligned
        and (argument.flags.writeable or not parameter.mutable)
    )


def _described(parameter: Parameter) -> str:
    if isinstance(parameter, ArrayParameter):
        kind = "" if parameter.mutable else "read-only "
        return f"{kind}{parameter.dtype}[{parameter.dimensions}d, C]"
    return "number" if parameter is None else f"({', '.join(_described(each) for each in parameter)})"


def _given(argument: Any) -> str:
    if isinstance(argument, np.ndarray):
        order = "C" if argument.flags.c_contiguous else "strided"
        kind = "" if argument.flags.writeable else "read-only "
        return f"{kind}{argument.dtype}[{argument.ndim}d, {order}]"
    return type(argument).__name__
