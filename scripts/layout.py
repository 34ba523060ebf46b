"""Write docs/layout.md: every module with the first sentence of its docstring, by package and folder.

`make layout` writes the page; a test fails when it is not what this would write.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "layout.md"
PACKAGES = ("tsdb", "promql", "ingest", "security", "agent", "web", "cli", "benchmarks")
_HEAD = """\
# Layout

One line a module: the first sentence of its docstring. Written by `make layout`; do not edit.
"""


def first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring, on one line. Raises ValueError where there is none."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not text:
        raise ValueError(f"{path.relative_to(ROOT)} has no docstring")
    line = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=[.:;]) (?=[A-Z`])", line)[0].rstrip(".:;").replace("|", "/")


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    for package in PACKAGES:
        folders: dict[Path, list[Path]] = {}
        for path in sorted((ROOT / package).rglob("*.py")):
            folders.setdefault(path.parent, []).append(path)
        for folder in sorted(folders):
            lines = [
                f"| `{path.stem}` | {first_sentence(path)} |"
                for path in folders[folder]
                if path.stem != "__init__"
            ]
            if lines:
                parts.append(f"\n## {folder.relative_to(ROOT)}/\n| module | what it is |\n|---|---|")
                parts.extend(lines)
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page():
        sys.exit(0)
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
