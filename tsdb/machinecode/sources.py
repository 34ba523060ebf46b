"""Which text a kernel was made from: one digest for everything that its machine code depends on."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path

_KERNEL_IMPORT = re.compile(
    r"^\s*(?:from|import)\s+(\w+\.kernels(?:\.\w+)?)(?:\s+import\s+([\w, ()]+))?", re.MULTILINE
)

_INSTRUCTION = re.compile(r'\binstruction\(\s*"([\w.]+)"')


@cache
def source_digest(path: str) -> str:
    """Digest of a kernel module's text and of all kernel modules and instructions behind it."""
    resolved = Path(path).resolve()
    root = resolved.parent.parent.parent
    digest = hashlib.blake2b(digest_size=16)
    pending, seen = [resolved], set[Path]()
    while pending:
        file = pending.pop()
        if file not in seen and _text(file):
            seen.add(file)
            pending += _imported(file, root)
    for file in sorted(seen):
        digest.update(_text(file))
    return digest.hexdigest()


@cache
def _text(file: Path) -> bytes:
    """Empty for what is no file."""
    return file.read_bytes() if file.is_file() else b""


@cache
def _imported(file: Path, root: Path) -> list[Path]:
    text = _text(file).decode()
    found = [root.joinpath(*name.split(".")).with_suffix(".py") for name in set(_INSTRUCTION.findall(text))]
    for match in _KERNEL_IMPORT.finditer(text):
        module, names = match.group(1), match.group(2)
        base = root.joinpath(*module.split("."))
        found.append(base.with_suffix(".py"))
        if names and base.is_dir():
            found += [base / f"{name.strip(' ()')}.py" for name in names.split(",")]
    return found
