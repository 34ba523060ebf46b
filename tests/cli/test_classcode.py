"""Generated methods from a file, beside those that Python compiles itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.classcode import CompiledTexts


@pytest.fixture(autouse=True)
def _exec_as_before() -> Iterator[None]:
    before = vars(dataclasses).get("exec")
    yield
    if before is None:
        vars(dataclasses).pop("exec", None)
    else:
        vars(dataclasses)["exec"] = before


def make_class() -> Any:
    @dataclasses.dataclass(frozen=True, slots=True, order=True)
    class Point:
        """A point."""

        x: int
        y: list[int] = dataclasses.field(default_factory=list, hash=False)
        z: float = 0.5

    return Point


def behaviour(kind: Any) -> list[Any]:
    point = kind(1, [2])
    with pytest.raises(dataclasses.FrozenInstanceError):
        point.x = 2
    with pytest.raises(TypeError):
        kind()
    same = dataclasses.replace(point, x=1)
    return [repr(point), point == same, point < kind(2), hash(point) == hash(same), kind(3).y, kind(3).z]


def test_classes_of_stored_code_behave_as_others(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "codes"
    plain = behaviour(make_class())
    writing = CompiledTexts(path)
    writing.install()
    assert behaviour(make_class()) == plain
    assert writing.used
    writing.save()
    reading = CompiledTexts(path)
    reading.install()
    assert behaviour(make_class()) == plain
    assert reading.used.keys() == writing.used.keys()
    # Nothing was compiled: the code is that of the file, which need not be written again.
    assert reading._stored == writing.used
    before = path.stat().st_mtime_ns
    reading.save()
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize("content", [b"", b"VEDETTE-CLASSES\2other version", None])
def test_a_file_of_another_version_or_cut_off_is_passed_over(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "codes"
    writing = CompiledTexts(path)
    writing.install()
    plain = behaviour(make_class())
    writing.save()
    path.write_bytes(path.read_bytes()[:-40] if content is None else content)
    reading = CompiledTexts(path)
    reading.install()
    assert behaviour(make_class()) == plain
    assert not reading._stored
    reading.save()
    again = CompiledTexts(path)
    again.install()
    assert behaviour(make_class()) == plain
    assert again._stored


def test_a_folder_that_may_not_be_written_to_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    texts = CompiledTexts(file / "codes")
    texts.install()
    behaviour(make_class())
    texts.save()
    assert file.read_text(encoding="utf-8") == ""
