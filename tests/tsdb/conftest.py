"""Blocks of promtool for all tests that import them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.e2e.processes import need_programs
from tests.tsdb.importing import openmetrics


@pytest.fixture(scope="session")
def promtool_blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three blocks made by Debian's promtool."""
    need_programs("promtool")
    folder = tmp_path_factory.mktemp("promtool")
    (folder / "in.om").write_text(openmetrics())
    run = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "in.om", "data"]
    subprocess.run(run, cwd=folder, check=True, capture_output=True, timeout=60)
    (folder / "data" / "wal").mkdir()
    return folder / "data"
