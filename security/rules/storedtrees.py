"""Trees of conditions kept in a file beside the compiled modules, so that a start need not parse them.

Making lark's parser takes a fifth of an idle server's start. Only for rules that come with Vedette: their
conditions change with the code, so the file stays one and small.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
from collections.abc import Mapping
from importlib import metadata, resources
from pathlib import Path

from security.rules.ast import Node

_MADE_BY = ("ast.py", "condition.py", "conditionbuilder.py", "condition.lark", "../starter_rules.yaml")


def read_trees(folder: Path | None = None) -> dict[str, Node]:
    """Trees by their conditions; none where there is no file of these rules, nodes and grammar.

    `folder` is that of the package unless a test names another. The file is trusted as byte code is: it lies
    in the same folder.
    """
    try:
        trees: dict[str, Node] = pickle.loads(_path(folder).read_bytes())
    except Exception:
        # Absent, or cut short by a full disk: it holds nothing that cannot be parsed again.
        return {}
    return trees


def write_trees(trees: Mapping[str, Node], folder: Path | None = None) -> None:
    """Keep them for the next process, in place of what is there; where nothing may be written, nothing is."""
    path = _path(folder)
    with contextlib.suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_bytes(pickle.dumps(dict(trees), pickle.HIGHEST_PROTOCOL))
        temporary.replace(path)


def _path(folder: Path | None) -> Path:
    package = Path(str(resources.files("security.rules")))
    parts = [(package / name).read_bytes() for name in _MADE_BY]
    digest = hashlib.blake2b(b"\0".join((*parts, metadata.version("lark").encode())), digest_size=12)
    return (folder or package) / "__pycache__" / f"conditions.{digest.hexdigest()}.pickle"
