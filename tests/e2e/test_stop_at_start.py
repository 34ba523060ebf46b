"""A server told to stop while its kernels are compiled, which takes minutes, does not wait for them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.processes import free_port

pytestmark = pytest.mark.e2e

STUCK = """
import sys, time
import cli.server
from cli.main import main

def compile_for_ever(stopping):
    print("compiling", flush=True)
    time.sleep(3600)

cli.server._warm_write_path = compile_for_ever
sys.argv = ["vedette", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_compiles_is_stopped_by_a_signal(tmp_path: Path, number: int) -> None:
    address = f"--web.listen-address=127.0.0.1:{free_port()}"
    command = [sys.executable, "-c", STUCK, "serve", f"--storage.tsdb.path={tmp_path}/data", address]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(number)
        _, log = process.communicate(timeout=120)
    assert line == "compiling\n", log
    assert process.returncode == 0
    assert "See you next time!" in log
