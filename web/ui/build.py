"""Fetch the plotting library of the query page from npm: `python -m web.ui.build`, a part of `make install`.

The version and its hash are pinned. Without npm (or without a network) the page works, with a note in place
of the graph.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "uplot"
VERSION = "1.6.32"
INTEGRITY = "sha512-KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw=="
FILES = {
    "package/dist/uPlot.iife.min.js": "uPlot.iife.min.js",
    "package/dist/uPlot.min.css": "uPlot.min.css",
    "package/LICENSE": "LICENSE",
}
VENDOR = Path(__file__).resolve().parent / "vendor"

_STAMP = "version.txt"
_FETCH_TIMEOUT_S = 120
_FILE_BYTES_MAX = 1024 * 1024


class FetchError(Exception):
    """The library could not be fetched; the text is one line."""


def is_current(vendor: Path = VENDOR) -> bool:
    """Whether the pinned version is there."""
    stamp = vendor / _STAMP
    complete = all((vendor / name).is_file() for name in FILES.values())
    return complete and stamp.is_file() and stamp.read_text(encoding="utf-8") == VERSION


def _download(npm: str, folder: Path) -> Path:
    command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--silent", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_FETCH_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FetchError(f"npm pack failed: {error}") from None
    archives = sorted(folder.glob("*.tgz"))
    if done.returncode != 0 or not archives:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise FetchError(f"npm pack failed: {last}")
    return archives[0]


def _check(archive: Path) -> None:
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if f"sha512-{digest}" != INTEGRITY:
        raise FetchError(f"{archive.name} has sha512-{digest}, expected {INTEGRITY}")


def _unpack(archive: Path, vendor: Path) -> None:
    vendor.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as package:
        for member, name in FILES.items():
            source = package.extractfile(member)
            if source is None:
                raise FetchError(f"{archive.name} has no {member}")
            content = source.read(_FILE_BYTES_MAX + 1)
            if len(content) > _FILE_BYTES_MAX:
                raise FetchError(f"{member} is larger than {_FILE_BYTES_MAX} bytes")
            (vendor / name).write_bytes(content)
    (vendor / _STAMP).write_text(VERSION, encoding="utf-8")


def fetch(vendor: Path = VENDOR) -> None:
    """Put the library's files under `vendor`. Raises FetchError."""
    npm = shutil.which("npm")
    if npm is None:
        raise FetchError("npm is not installed")
    with tempfile.TemporaryDirectory() as folder:
        archive = _download(npm, Path(folder))
        _check(archive)
        _unpack(archive, vendor)


def main() -> int:
    """Fetch unless it is there; never fails an installation."""
    if is_current():
        return 0
    try:
        fetch()
    except (FetchError, OSError) as error:
        print(f"web.ui.build: {error}; the query page will show tables but no graphs", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
