"""Imports run one way: an upward or sideways import between our packages fails here."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

ALLOWED: dict[str, set[str]] = {
    "tsdb": set(),
    "promql": {"tsdb"},
    "ingest": {"tsdb"},
    "security": {"tsdb", "promql"},
    "agent": {"ingest", "security", "tsdb"},
    "web": {"agent", "security", "ingest", "promql", "tsdb"},
    "cli": {"web", "agent", "security", "ingest", "promql", "tsdb"},
}
OURS = {*ALLOWED, "benchmarks", "tests"}

PROMQL_MAY_USE = {
    *("labels", "select", "errors", "symbols", "serieslabels"),
    *("histogram", "columns", "regex", "kernels"),
}


def imports_of(path: Path) -> set[str]:
    """Dotted names a file imports, deferred imports included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_of_a_package_run_downwards(package: str) -> None:
    offences = []
    for path in sorted((ROOT / package).rglob("*.py")):
        for name in imports_of(path):
            top = name.split(".")[0]
            if top in OURS and top != package and top not in ALLOWED[package]:
                offences.append(f"{path.relative_to(ROOT)} imports {name}")
            if (
                top == "tsdb"
                and package == "promql"
                and "." in name
                and name.split(".")[1] not in PROMQL_MAY_USE
            ):
                offences.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not offences, "\n".join(offences)


def test_kernel_modules_import_only_kernels_and_numeric_libraries() -> None:
    offences = []
    for path in sorted(ROOT.glob("*/kernels/*.py")):
        for name in imports_of(path):
            top = name.split(".")[0]
            if top in OURS and ".kernels" not in name and not name.startswith("tsdb.machinecode."):
                offences.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not offences, "\n".join(offences)


def test_packages_without_a_subject_do_not_exist() -> None:
    vague = {"utils", "util", "common", "helpers", "base", "misc", "manager"}
    found = [
        str(path.relative_to(ROOT))
        for package in ALLOWED
        for path in (ROOT / package).rglob("*.py")
        if path.stem in vague
    ]
    assert not found, "\n".join(found)
