"""Finding kernel headers, and the union of Debian's two packages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.probe import headers

RELEASE = "6.18.44-test"

PLACES = [
    (["lib/modules/6.18.44-test/build/include/linux"], [], "running"),
    (["lib/modules/6.18.44-test/source/include/linux"], ["sys/kernel/kheaders.tar.xz"], "running"),
    (["sys/kernel"], ["sys/kernel/kheaders.tar.xz"], "archive"),
    (
        ["usr/src/linux-headers-6.1.0-9-common", "usr/src/linux-headers-6.1.0-9-amd64/include"],
        [],
        "debian",
    ),
]


@pytest.mark.parametrize(("folders", "files", "kind"), PLACES)
def test_headers_are_found_in_order(tmp_path: Path, folders: list[str], files: list[str], kind: str) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert headers.find(RELEASE, tmp_path).kind == kind


def test_the_newest_debian_version_wins_by_number(tmp_path: Path) -> None:
    for version in ("6.1.0-9", "6.1.0-56"):
        (tmp_path / f"usr/src/linux-headers-{version}-common").mkdir(parents=True)
        (tmp_path / f"usr/src/linux-headers-{version}-amd64/include").mkdir(parents=True)
        (tmp_path / f"usr/src/linux-headers-{version}-rt-amd64/include").mkdir(parents=True)
    common, flavour = headers.find(RELEASE, tmp_path).trees
    assert (common.name, flavour.name) == ("linux-headers-6.1.0-56-common", "linux-headers-6.1.0-56-amd64")


def test_nothing_found_is_one_line_that_names_every_place(tmp_path: Path) -> None:
    (tmp_path / "usr/src/linux-headers-6.1.0-9-common").mkdir(parents=True)
    with pytest.raises(headers.HeadersError) as caught:
        headers.find(RELEASE, tmp_path)
    text = str(caught.value)
    assert "\n" not in text
    assert all(place in text for place in ("lib/modules", "kheaders.tar.xz", "linux-headers-*-common"))


def test_the_union_has_both_trees_and_the_later_one_wins(tmp_path: Path) -> None:
    first, second, union = (tmp_path / name for name in ("first", "second", "union"))
    for tree, files in ((first, ["Makefile", "only/one.h", "both/a.h"]), (second, ["Makefile", "both/b.h"])):
        for file in files:
            (tree / file).parent.mkdir(parents=True, exist_ok=True)
            (tree / file).write_text(tree.name)
    union.mkdir()
    assert headers.merge((first, second), union) == 5
    assert (union / "Makefile").read_text() == "second"
    assert (union / "only").is_symlink()
    assert sorted(path.name for path in (union / "both").iterdir()) == ["a.h", "b.h"]


def test_an_endless_tree_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers, "ENTRIES_LIMIT", 3)
    for number in range(5):
        (tmp_path / "tree" / str(number)).mkdir(parents=True)
    (tmp_path / "union").mkdir()
    with pytest.raises(headers.HeadersError, match="limit of 3 entries"):
        headers.merge((tmp_path / "tree",), tmp_path / "union")


def test_the_environment_and_the_folder_are_gone_after_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(headers.SOURCE_VARIABLE, raising=False)
    trees = (tmp_path / "a", tmp_path / "b")
    for tree in trees:
        tree.mkdir()
    with headers.kernel_source(headers.Headers("debian", trees)):
        folder = Path(os.environ[headers.SOURCE_VARIABLE])
        assert folder.is_dir()
    assert headers.SOURCE_VARIABLE not in os.environ
    assert not folder.exists()
