"""The image of the kernels: linked, loaded without numba, and left alone where it does not fit."""

from __future__ import annotations

import logging
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cli.kernels import import_all_kernels
from tsdb.kernels.compile import registered
from tsdb.kernels.recordgroups import group_records
from tsdb.machinecode import loading
from tsdb.machinecode.arguments import ArrayParameter, checked, from_plain, to_plain
from tsdb.machinecode.compiler import make_image
from tsdb.machinecode.elf import UnknownObjectError, read_object
from tsdb.machinecode.identity import identity
from tsdb.machinecode.image import Image, ImageError, read_image, write_image

_LATER_NUMBA = """
import sys
import numpy as np
from tsdb.kernels.recordgroups import group_records
def groups(function):
    columns = [np.zeros(2, dtype=np.int64) for _ in range(3)]
    refs = np.array([1, 2, 2], dtype=np.uint32)
    count = function(refs, np.array([1, 3]), 0, 1, np.zeros(4, dtype=np.uint32), *columns)
    return [count, *columns[2].tolist()]
first = groups(group_records)
early = "numba" in sys.modules or "llvmlite" in sys.modules
from tsdb.machinecode.compiler import compile_kernel
import numba
doubled = numba.njit(lambda values: np.concatenate((values, values)))(np.arange(2))
print(early, first, groups(compile_kernel(group_records)), groups(group_records), doubled.tolist())
"""


@pytest.fixture(scope="module")
def image() -> Image:
    """Made of this process's kernels, from numba's cache."""
    if platform.machine() != "x86_64":
        pytest.skip("images are made on x86-64 only")
    import_all_kernels()
    return make_image()


def test_every_kernel_is_in_the_image(image: Image) -> None:
    assert dict(image.identity) == identity()
    here = {each.name: each.digest for each in registered() if not each.name.startswith("tests.")}
    assert here
    assert {name: [each.digest for each in image.entries[name]] for name in here} == {
        name: [digest] for name, digest in here.items()
    }


def test_numba_works_in_a_process_that_has_loaded_the_image(image: Image) -> None:
    done = subprocess.run([sys.executable, "-c", _LATER_NUMBA], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False [2, 0, 1] [2, 0, 1] [2, 0, 1] [0, 1, 0, 1]"


def test_code_cannot_be_written_to_and_data_not_be_run(image: Image) -> None:
    loaded = loading.Loaded(image)
    ranges = []
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        place, mode = line.split()[:2]
        low, high = (int(text, 16) for text in place.split("-"))
        if low < loaded._base + len(image.data) and high > loaded._base:
            ranges.append((low <= loaded._base, mode))
    assert ranges[0][1].startswith("r-x")
    assert all("w" not in mode or "x" not in mode for _, mode in ranges)


def test_another_digest_is_not_found(image: Image) -> None:
    name = group_records.name
    assert loading.Loaded(image).kernel(name, group_records.digest) is not None
    assert loading.Loaded(image).kernel(name, "0" * 32) is None
    assert loading.Loaded(image).kernel("tsdb.kernels.recordgroups.nothing", group_records.digest) is None


def test_an_image_survives_writing_and_reading(image: Image, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "image"
    write_image(image, path)
    again = read_image(path)
    assert (again.entries, again.names, again.data) == (image.entries, image.names, image.data)
    assert np.array_equal(again.external, image.external)
    assert [each.name for each in path.parent.iterdir()] == ["image"]


@pytest.mark.parametrize("size", [0, 10, 40, 5000, -1])
def test_a_part_of_an_image_is_refused(image: Image, tmp_path: Path, size: int) -> None:
    path = tmp_path / "image"
    write_image(image, path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ImageError, match="no whole image"):
        read_image(path)


REASONS = {
    "other processor": "made for another processor",
    "unknown name": "nothing exports vedette_no_such_function",
    "torn file": "",
}
"""What the log says of an image that is passed over."""


@pytest.mark.parametrize("damage", REASONS)
def test_what_does_not_fit_is_left_to_numba(
    image: Image,
    tmp_path: Path,
    damage: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "tsdb.machinecode")
    path = tmp_path / "image"
    if damage == "other processor":
        image = replace(image, identity={**image.identity, "processor": "other"})
    if damage == "unknown name":
        image = replace(image, names=["vedette_no_such_function", *image.names[1:]])
    write_image(image, path)
    if damage == "torn file":
        path.write_bytes(path.read_bytes()[:-100])
    monkeypatch.setattr(loading, "image_paths", lambda: iter([tmp_path / "missing", path]))
    assert loading._load_first() is None
    (record,) = caplog.records
    assert record.getMessage().startswith("An image of kernels is passed over")
    assert record.__dict__["image"] == str(path)
    assert record.__dict__["reason"].startswith(REASONS[damage])


def test_what_is_no_object_is_refused() -> None:
    for data in (b"", b"\x7fELF", b"\x7fELF\x02\x01" + bytes(200)):
        with pytest.raises(UnknownObjectError):
            read_object(data)


ROW = ArrayParameter("uint64", 1, mutable=True)
TABLE = ArrayParameter("float64", 2, mutable=False)


def test_parameters_survive_json() -> None:
    for each in (ROW, None, (ROW, (TABLE, None))):
        assert from_plain(to_plain(each)) == each


def test_arguments_that_fit_reach_the_kernel() -> None:
    call = checked(lambda *arguments: len(arguments), "some", [ROW, TABLE, (ROW, None), None])
    row, table = np.zeros(3, dtype=np.uint64), np.zeros((2, 2))
    table.flags.writeable = False
    assert call(row, table, (row, 1), 2) == 4
    swapped = np.zeros(3, dtype=np.dtype("u8").newbyteorder().newbyteorder())
    assert call(swapped, np.zeros((0, 4)), (row[1:], 1), 2) == 4


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros(3, dtype=np.int64),
        np.zeros(3, dtype=">u8"),
        np.zeros((3, 1), dtype=np.uint64),
        np.zeros(6, dtype=np.uint64)[::2],
        np.frombuffer(bytes(24), dtype=np.uint64),
        np.frombuffer(bytearray(25), dtype=np.uint8)[1:].view(np.uint64),
        [1, 2, 3],
        None,
        7,
    ],
    ids=["dtype", "byte order", "dimensions", "strided", "read-only", "unaligned", "list", "none", "number"],
)
def test_arguments_that_do_not_fit_never_reach_the_kernel(bad: object) -> None:
    reached: list[object] = []
    call = checked(lambda *arguments: reached.append(arguments), "some", [None, ROW])
    with pytest.raises(TypeError, match=r"No matching definition for some\(number, uint64\[1d, C\]\)"):
        call(1, bad)
    inner = checked(lambda *arguments: reached.append(arguments), "some", [(None, ROW)])
    for wrong in ((1, bad), (1,), (1, np.zeros(1, dtype=np.uint64), 2), bad):
        with pytest.raises(TypeError):
            inner(wrong)
    with pytest.raises(TypeError):
        call(1)
    assert not reached
