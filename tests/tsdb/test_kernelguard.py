"""Wrong arguments never reach the machine code of a kernel from the image; good ones give what numba has."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promql.kernels import histogram
from tsdb.kernels import recordgroups
from tsdb.kernels.compile import Kernel
from tsdb.machinecode import compiler, guard, loading
from tsdb.machinecode.identity import identity
from tsdb.machinecode.image import ImageError, link

NAME = "tsdb.kernels.recordgroups.group_records"
KERNEL: Kernel[..., Any] = recordgroups.group_records


POOL_DTYPES = ["i4", "u1", *["f8"] * 4, *["i8", "i4", "f8"] * 2, "i8", "f8"]
"""Of the columns of a pool of histograms (promql/kernels/histogrampool.py)."""


def _image() -> Any:
    return link(compiler._stored(KERNEL), identity())


@pytest.fixture(scope="module")
def loaded() -> Any:
    found = loading.Loaded(_image()).kernel(NAME, KERNEL.digest)
    assert found is not None
    return found


def _arguments() -> list[Any]:
    refs, ends = np.array([1, 2, 2], dtype=np.uint32), np.array([1, 3])
    columns = [np.zeros(2, dtype=np.int64) for _ in range(3)]
    return [refs, ends, 0, 1, np.zeros(4, dtype=np.uint32), *columns]


def test_the_same_as_numba(loaded: Any) -> None:
    ours, numbas = _arguments(), _arguments()
    assert loaded(*ours) == compiler.compile_kernel(KERNEL)(*numbas) == 2
    for left, right in zip(ours, numbas, strict=True):
        np.testing.assert_array_equal(left, right)


def _read_only() -> Any:
    array = np.zeros(4, dtype=np.uint32)
    array.flags.writeable = False
    return array


def _unaligned() -> Any:
    return np.zeros(17, dtype=np.uint8)[1:].view(np.uint32)


WRONG_ARRAYS: dict[str, Any] = {
    "smaller elements": np.zeros(4, dtype=np.int8),
    "another kind of the same size": np.zeros(4, dtype=np.float32),
    "signed": np.zeros(4, dtype=np.int32),
    "other byte order": np.zeros(4, dtype=">u4"),
    "objects": np.zeros(4, dtype=object),
    "two dimensions": np.zeros((2, 2), dtype=np.uint32),
    "no dimension": np.zeros((), dtype=np.uint32),
    "every second": np.zeros(8, dtype=np.uint32)[::2],
    "read-only": _read_only(),
    "unaligned": _unaligned(),
    "a list": [0, 0, 0, 0],
    "bytes": bytes(16),
    "a number": 3,
    "numpy's number": np.uint32(3),
    "nothing": None,
    "a type": np.ndarray,
}


@pytest.mark.parametrize("wrong", WRONG_ARRAYS.values(), ids=WRONG_ARRAYS.keys())
@pytest.mark.parametrize("place", [0, 4])
def test_a_wrong_array_is_refused_and_nothing_is_written(loaded: Any, wrong: Any, place: int) -> None:
    arguments = _arguments()
    arguments[place] = wrong
    held = sys.getrefcount(wrong)
    for _ in range(100):
        with pytest.raises(TypeError, match="group_records"):
            loaded(*arguments)
    # CPython counts in steps of what else goes on; a leak would be a hundred.
    assert sys.getrefcount(wrong) < held + 50
    assert not any(column.any() for column in arguments[5:])


@pytest.mark.parametrize("wrong", ["1", None, 1j, np.zeros(1), [1], np.str_("1")])
def test_a_wrong_number_is_refused(loaded: Any, wrong: Any) -> None:
    arguments = _arguments()
    arguments[3] = wrong
    with pytest.raises(TypeError, match="number"):
        loaded(*arguments)


@pytest.mark.parametrize("number", [1, True, 1.0, np.int64(1), np.uint64(1), np.int32(1), np.bool_(True)])
def test_any_number_is_converted(loaded: Any, number: Any) -> None:
    arguments = _arguments()
    arguments[3] = number
    assert loaded(*arguments) == 2


def test_too_few_and_too_many(loaded: Any) -> None:
    for arguments in ([], _arguments()[:-1], [*_arguments(), 1]):
        with pytest.raises(TypeError):
            loaded(*arguments)


def test_keywords(loaded: Any) -> None:
    arguments = _arguments()
    names = KERNEL.function.__code__.co_varnames[: len(arguments)]
    assert loaded(**dict(zip(names, arguments, strict=True))) == 2
    *others, last = _arguments()
    none: dict[str, Any] = {}
    assert loaded(*others, **{names[-1]: last}, **none) == 2
    with pytest.raises(TypeError):
        loaded(*others, unknown=last)
    assert KERNEL(*_arguments(), **none) == 2


def test_an_equal_dtype_that_is_another_object_and_a_mapped_file(loaded: Any, tmp_path: Path) -> None:
    other = pickle.loads(pickle.dumps(np.dtype(np.uint32, align=True), protocol=0))
    metadata = np.dtype(np.uint32, metadata={"unit": "s"})
    mapped = np.memmap(tmp_path / "words", dtype=np.uint32, mode="w+", shape=4)
    for array in (np.zeros(4, dtype=other), np.zeros(4, dtype=metadata), mapped):
        arguments = _arguments()
        arguments[4] = array
        assert loaded(*arguments) == 2


def test_tuples_are_looked_into() -> None:
    kernel: Kernel[..., Any] = histogram.variances
    loaded = loading.Loaded(link(compiler._stored(kernel), identity())).kernel(kernel.name, kernel.digest)
    assert loaded is not None
    pool = tuple(np.zeros(2, dtype=dtype) for dtype in POOL_DTYPES)
    cells, out = np.zeros(1, dtype=np.int32), np.zeros(1)
    loaded(pool, cells, out)
    assert np.isnan(out[0])
    for at in range(len(pool)):
        wrong = np.zeros(2, dtype=np.int16)
        for other in ((*pool[:at], wrong, *pool[at + 1 :]), pool[:at], list(pool), pool[at]):
            with pytest.raises(TypeError, match="variances"):
                loaded(other, cells, out)


def test_where_arrays_lie_in_another_way_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_FLAGS", 60)
    assert not guard.layout_is_known()
    with pytest.raises(ImageError, match="arrays"):
        loading.Loaded(_image())
