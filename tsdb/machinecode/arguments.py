"""Testing a kernel's arguments before the call: machine code believes what it is given.

The test is written out and compiled for each signature, as dataclasses are: a loop over the parameters would
cost more than many kernels. What is tested of an array is what the signature promises: dtype, dimensions,
C order and alignment, and that it may be written to unless the signature says read-only.
"""

from __future__ import annotations

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
    """`entry` behind the test of its arguments. The result raises TypeError."""
    names = [f"a{i}" for i in range(len(parameters))]
    found: dict[str, Any] = {"entry": entry, "refuse": _refuser(name, parameters)}
    tests = [test for each, at in zip(parameters, names, strict=True) for test in _tests(each, at, found)]
    text = ", ".join(names)
    lines = [f"def call({text}):"]
    if tests:
        lines += [
            "    try:",
            f"        good = {' and '.join(tests)}",
            "    except (AttributeError, TypeError, IndexError):",
            "        good = False",
            f"    if not good: refuse({text})",
        ]
    lines.append(f"    return entry({text})")
    exec("\n".join(lines), found)
    call: Callable[..., Any] = found["call"]
    call.__name__ = call.__qualname__ = name
    return call


def _tests(parameter: Parameter, at: str, found: dict[str, Any]) -> list[str]:
    if isinstance(parameter, ArrayParameter):
        kind = f"t_{parameter.dtype}"
        found[kind] = np.dtype(parameter.dtype)
        # Arrays of the usual makers share one object for their dtype; others have an equal one.
        tests = [f"({at}.dtype is {kind} or {at}.dtype == {kind})", f"{at}.ndim == {parameter.dimensions}"]
        if parameter.mutable:
            return [*tests, f"{at}.flags.carray"]
        return [*tests, f"{at}.flags.c_contiguous", f"{at}.flags.aligned"]
    if parameter is None:
        return []
    inner = [test for i, each in enumerate(parameter) for test in _tests(each, f"{at}[{i}]", found)]
    return [f"type({at}) is tuple", f"len({at}) == {len(parameter)}", *inner]


def _refuser(name: str, parameters: Sequence[Parameter]) -> Callable[..., None]:
    def refuse(*arguments: Any) -> None:
        wanted = ", ".join(_described(each) for each in parameters)
        given = ", ".join(_given(each) for each in arguments)
        raise TypeError(f"No matching definition for {name}({wanted}): given ({given})")

    return refuse


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
