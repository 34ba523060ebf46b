"""A server whose kernels are in the image takes samples and answers queries without mapping the compiler."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cli.kernels import import_all_kernels
from tests.e2e.processes import Api, series, start_vedette
from tsdb.kernels.compile import save_image

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def test_a_server_takes_and_gives_samples_without_numba(tmp_path: Path) -> None:
    import_all_kernels()
    assert save_image()
    server = start_vedette(tmp_path)
    try:
        server.wait_ready(60.0)
        api = Api(server.port)
        now = time.time()
        samples = [(int(now * 1000) - 15_000 * (3 - k), float(k)) for k in range(4)]
        rows = [series("m", samples, i=i) for i in "ab"]
        assert api.write(rows)[0] == 204
        result = api.query("sum by (i) (max_over_time(m[5m])) * 2", now)["result"]
        assert [row["value"][1] for row in result] == ["6", "6"]
        mapped = Path(f"/proc/{server.pid}/maps").read_text(encoding="utf-8")
        assert "llvmlite" not in mapped
        assert "numba/_dispatcher" not in mapped
        assert "numba/_helperlib" in mapped
        api.close()
    finally:
        server.stop()
