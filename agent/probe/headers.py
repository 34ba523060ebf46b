"""Which kernel headers the compiler of the BPF program gets.

They are needed for fixed-width types and helper declarations only; every offset comes from BTF, so headers of
another kernel version do. Tried in order: the running kernel's own, the archive a kernel may carry
(`/sys/kernel/kheaders.tar.xz`, which the compiler unpacks itself), Debian's two header packages as one tree.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ENTRIES_LIMIT = 200_000
"""Links and folders in one merged tree; Debian's has about 400."""

SOURCE_VARIABLE = "BCC_KERNEL_SOURCE"


class HeadersError(RuntimeError):
    """No kernel headers were found; the text says in one line where was looked."""


@dataclass(frozen=True, slots=True)
class Headers:
    """What was found: `kind` is ``running``, ``archive`` or ``debian``; later trees overlay earlier ones."""

    kind: str
    trees: tuple[Path, ...]


def find(release: str, root: Path = Path("/")) -> Headers:
    """The best headers for kernel `release` below `root`; raises `HeadersError` when there are none."""
    modules = root / "lib/modules" / release
    for name in ("build", "source"):
        if (modules / name / "include/linux").is_dir():
            return Headers("running", (modules / name,))
    archive = root / "sys/kernel/kheaders.tar.xz"
    if archive.is_file():
        return Headers("archive", (archive,))
    pair = _debian_pair(root / "usr/src")
    if pair is not None:
        return Headers("debian", pair)
    raise HeadersError(
        f"no kernel headers: neither {modules}/build nor {archive} nor "
        f"{root / 'usr/src'}/linux-headers-*-common and its -amd64 package"
    )


def _debian_pair(sources: Path) -> tuple[Path, Path] | None:
    """The newest common tree that has an architecture's tree of the same version beside it."""
    found: list[tuple[list[int], tuple[Path, Path]]] = []
    for common in sources.glob("linux-headers-*-common"):
        stem = common.name.removesuffix("-common")
        for flavour in sorted(sources.glob(f"{stem}-*")):
            plain = flavour.name.removeprefix(stem).count("-") == 1
            if flavour != common and plain and (flavour / "include").is_dir():
                numbers = [int(part) for part in re.findall(r"\d+", stem)]
                found.append((numbers, (common, flavour)))
                break
    return max(found)[1] if found else None


def merge(trees: tuple[Path, ...], target: Path) -> int:
    """Fill the empty folder `target` with links to the union of `trees`; the last tree wins.

    Returns the number of entries made.     A folder that only one tree has is linked as a whole.
    """
    made = 0
    pending: list[tuple[tuple[Path, ...], Path]] = [(trees, target)]
    while pending:
        folders, into = pending.pop()
        entries: dict[str, list[Path]] = {}
        for folder in folders:
            for entry in os.scandir(folder):
                entries.setdefault(entry.name, []).append(Path(entry.path))
        for name, paths in entries.items():
            made += 1
            if made > ENTRIES_LIMIT:
                raise HeadersError(f"{trees[0]} has more than the limit of {ENTRIES_LIMIT} entries")
            if len(paths) > 1 and all(path.is_dir() for path in paths):
                (into / name).mkdir()
                pending.append((tuple(paths), into / name))
            else:
                (into / name).symlink_to(paths[-1].resolve())
    return made


@contextmanager
def kernel_source(headers: Headers) -> Iterator[None]:
    """Point the compiler at `headers` while it runs. Not thread-safe: it sets the environment."""
    if headers.kind == "archive":
        yield
        return
    before = os.environ.get(SOURCE_VARIABLE)
    folder = Path(tempfile.mkdtemp(prefix="vedette-headers-"))
    try:
        if len(headers.trees) > 1:
            merge(headers.trees, folder)
        os.environ[SOURCE_VARIABLE] = str(folder if len(headers.trees) > 1 else headers.trees[0])
        yield
    finally:
        if before is None:
            os.environ.pop(SOURCE_VARIABLE, None)
        else:
            os.environ[SOURCE_VARIABLE] = before
        shutil.rmtree(folder, ignore_errors=True)
