"""Testing a kernel's arguments before the call, in machine code.

Machine code believes what it is given, and a test in Python costs more than many kernels (22 arrays: 4 us).
So each kernel is entered through a function of its own that reads the arguments as numpy's headers describe
arrays (PyArrayObject_fields) and Python's describe tuples and dictionaries, and goes on to numba's wrapper
where all is as the signature says. Anything else (keywords, an equal dtype that is another object, another
type of number, a wrong argument) goes to a function in Python that looks closely: the `self` of the function
object.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tsdb.machinecode.arguments import ArrayParameter, Parameter

GUARD = "vedette.guard"
WRAPPER = "vedette.wrapper"
"""Symbols of the function that is written here and of numba's, which it calls."""

_TYPE, _TUPLE_SIZE, _TUPLE_ITEMS, _DICT_USED = 8, 16, 24, 16
_DIMENSIONS, _DTYPE, _FLAGS = 24, 56, 64
_CARRAY, _CARRAY_READ_ONLY = 0x0501, 0x0101
"""C-contiguous and aligned, and writable."""

NUMBERS = {
    f"vedette.type.{kind.__name__}": kind for kind in (int, float, bool, np.int64, np.uint64, np.float64)
}
"""Types of the numbers that are converted without a closer look, by symbol."""
_ARRAY, _TUPLE, _DTYPE_PREFIX = "vedette.type.ndarray", "vedette.type.tuple", "vedette.dtype."


def addresses(names: Sequence[str]) -> dict[str, int]:
    """Addresses of the symbols among `names` that guards refer to. Raises TypeError for an unknown dtype."""
    known = {_ARRAY: id(np.ndarray), _TUPLE: id(tuple), **{n: id(t) for n, t in NUMBERS.items()}}
    dtypes = {n: id(np.dtype(n.removeprefix(_DTYPE_PREFIX))) for n in names if n.startswith(_DTYPE_PREFIX)}
    return {**known, **dtypes}


def layout_is_known() -> bool:
    """Whether arrays and tuples lie in memory as guards expect them to."""
    array = np.zeros((2, 3), dtype=np.int16)
    array.flags.writeable = False
    pair = (array, array.dtype)

    def word(thing: object, at: int) -> int:
        return ctypes.c_uint64.from_address(id(thing) + at).value

    def half(thing: object, at: int) -> int:
        return ctypes.c_uint32.from_address(id(thing) + at).value

    return (
        tuple.__basicsize__ == _TUPLE_ITEMS
        and np.ndarray.__basicsize__ >= _FLAGS + 4
        and word(array, _TYPE) == id(np.ndarray)
        and (word(pair, _TUPLE_SIZE), word(pair, _TUPLE_ITEMS + 8)) == (2, id(array.dtype))
        and word({1: 2, 3: 4, 5: 6}, _DICT_USED) == 3
        and (half(array, _DIMENSIONS), word(array, _DTYPE)) == (2, id(array.dtype))
        and half(array, _FLAGS) == array.flags.num
        and array.flags.num & _CARRAY == _CARRAY_READ_ONLY
    )


def guarded(address: int, name: str, look: Callable[..., object]) -> Callable[..., Any]:
    """A built-in function of the guard at `address`, with `look` to look closely. Its definition is never
    freed, not even when the interpreter ends: modules go then in any order, and functions read theirs."""
    definition = _Definition(name.encode(), address, _VARARGS | _KEYWORDS, None)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(definition))
    made: Callable[..., Any] = _new_function(ctypes.byref(definition), look, None)
    return made


class _Definition(ctypes.Structure):
    """PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


_VARARGS, _KEYWORDS = 1, 2
_new_function = ctypes.PYFUNCTYPE(
    ctypes.py_object, ctypes.POINTER(_Definition), ctypes.py_object, ctypes.c_void_p
)(("PyCFunction_NewEx", ctypes.pythonapi))


def write_guard(parameters: Sequence[Parameter]) -> str:
    """LLVM's assembly of GUARD."""
    writer = _Writer()
    writer.test_no_keywords()
    writer.test_tuple("%arguments", parameters)
    body = "\n".join(writer.lines)
    names = "\n".join(f'@"{name}" = external global i8' for name in sorted(writer.externals))
    return f"""
{names}
declare ptr @"{WRAPPER}"(ptr, ptr, ptr)
declare ptr @PyObject_Call(ptr, ptr, ptr)
define ptr @"{GUARD}"(ptr %look, ptr %arguments, ptr %keywords) {{
start:
{body}
  %result = tail call ptr @"{WRAPPER}"(ptr null, ptr %arguments, ptr null)
  ret ptr %result
close:
  %looked = tail call ptr @PyObject_Call(ptr %look, ptr %arguments, ptr %keywords)
  ret ptr %looked
}}
"""


class _Writer:
    """Instructions one after the other; a failed test branches to `close`."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.externals: set[str] = set()
        self._count = 0

    def value(self, instruction: str) -> str:
        """The name of its result."""
        self._count += 1
        self.lines.append(f"  %v{self._count} = {instruction}")
        return f"%v{self._count}"

    def go_on_if(self, condition: str) -> None:
        """Leave for `close` if not."""
        self._count += 1
        self.lines += [f"  br i1 {condition}, label %b{self._count}, label %close", f"b{self._count}:"]

    def test_no_keywords(self) -> None:
        """No dictionary, or an empty one."""
        none = self.value("icmp eq ptr %keywords, null")
        self.lines += [f"  br i1 {none}, label %positional, label %counted", "counted:"]
        self.test_equal(self.load("%keywords", _DICT_USED, "i64"), "i64", "0")
        self.lines += ["  br label %positional", "positional:"]

    def load(self, pointer: str, at: int, kind: str) -> str:
        """A field of an object."""
        place = self.value(f"getelementptr i8, ptr {pointer}, i64 {at}")
        return self.value(f"load {kind}, ptr {place}")

    def test_equal(self, found: str, kind: str, wanted: str) -> None:
        """Go on where they are."""
        self.go_on_if(self.value(f"icmp eq {kind} {found}, {wanted}"))

    def outside(self, name: str) -> str:
        """The address of a symbol of another place."""
        self.externals.add(name)
        return f'@"{name}"'

    def test_tuple(self, pointer: str, parameters: Sequence[Parameter]) -> None:
        """Number and kinds of the elements; that it is a tuple is known."""
        self.test_equal(self.load(pointer, _TUPLE_SIZE, "i64"), "i64", str(len(parameters)))
        for number, parameter in enumerate(parameters):
            item = self.load(pointer, _TUPLE_ITEMS + 8 * number, "ptr")
            kind = self.load(item, _TYPE, "ptr")
            if isinstance(parameter, ArrayParameter):
                self.test_equal(kind, "ptr", self.outside(_ARRAY))
                self._test_array(item, parameter)
            elif parameter is None:
                same = [self.value(f"icmp eq ptr {kind}, {self.outside(name)}") for name in NUMBERS]
                any_of = same[0]
                for each in same[1:]:
                    any_of = self.value(f"or i1 {any_of}, {each}")
                self.go_on_if(any_of)
            else:
                self.test_equal(kind, "ptr", self.outside(_TUPLE))
                self.test_tuple(item, parameter)

    def _test_array(self, item: str, parameter: ArrayParameter) -> None:
        dtype = self.outside(_DTYPE_PREFIX + parameter.dtype)
        self.test_equal(self.load(item, _DTYPE, "ptr"), "ptr", dtype)
        self.test_equal(self.load(item, _DIMENSIONS, "i32"), "i32", str(parameter.dimensions))
        wanted = str(_CARRAY if parameter.mutable else _CARRAY_READ_ONLY)
        self.test_equal(self.value(f"and i32 {self.load(item, _FLAGS, 'i32')}, {wanted}"), "i32", wanted)
