"""Paths as rules compare them: absolute, without `.`, `..` and repeated slashes."""

from __future__ import annotations

import posixpath


def absolute_path(path: str, directory: str | None) -> str:
    """A path made absolute and normalised as text; symbolic links are not followed.

    A relative path whose directory is not known stays as it is.
    """
    if not path.startswith("/"):
        if directory is None:
            return path
        path = f"{directory}/{path}"
    return "/" + posixpath.normpath(path).lstrip("/")
