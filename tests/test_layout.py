"""The page that lists the modules is true."""

from __future__ import annotations

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "layout.py"


def test_the_layout_page_lists_every_module() -> None:
    spec = importlib.util.spec_from_file_location("layout", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    layout = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(layout)
    assert layout.PAGE.read_text(encoding="utf-8") == layout.page(), "run `make layout`"


def test_tests_that_run_alone_are_where_make_test_looks_for_them() -> None:
    tests = SCRIPT.parents[1] / "tests"
    marked = {
        path for path in tests.rglob("test_*.py") if "mark." + "alone" in path.read_text(encoding="utf-8")
    }
    assert marked
    assert {path.parent for path in marked} == {tests / "e2e"}
