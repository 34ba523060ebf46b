"""Counters of Java virtual machines: a recorded file of OpenJDK 17, damaged ones, and a real one."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.hsperfdata import PerfDataError, parse
from agent.jvmmetrics import JvmSource, add_machine
from agent.processgroups import GroupNames
from agent.processscan import ProcessScan
from ingest.gathered import Gathered

RECORDED = (Path(__file__).parent / "data" / "hsperfdata-openjdk17").read_bytes()
PROGRAM = """
public class Idle {
  public static void main(String[] words) throws Exception {
    System.gc();
    System.out.println("ready");
    System.in.read();
  }
}
"""


def values_of(gathered: Gathered) -> dict[tuple[str, ...], float]:
    return {(name, *labels[7:]): value for (name, _, labels), value in gathered.values.items()}


def test_the_counters_of_openjdk_17_become_metrics() -> None:
    gathered = Gathered()
    add_machine(gathered, parse(RECORDED), ("java:Idle", "", "", "", "", "", "7"))
    found = values_of(gathered)
    assert found["jvm_gc_collection_seconds_count", "Serial full collection pauses"] == 1
    assert 0 < found["jvm_gc_collection_seconds_sum", "Serial young collection pauses"] < 1
    assert found["jvm_memory_pool_max_bytes", "old"] == 44_761_088
    assert {key[1] for key in found if key[0] == "jvm_memory_pool_used_bytes"} == {
        *("eden", "s0", "s1", "old", "metaspace", "compressed class space"),
    }
    assert found["jvm_threads_current",] >= found["jvm_threads_daemon",] > 0
    assert found["jvm_runtime_info", "17.0.15", "Debian", "OpenJDK 64-Bit Server VM"] == 1


@given(st.integers(0, len(RECORDED) - 1), st.binary(min_size=1, max_size=8), st.integers(0, len(RECORDED)))
def test_a_damaged_file_never_does_harm(at: int, patch: bytes, cut: int) -> None:
    damaged = bytearray(RECORDED)
    damaged[at : at + len(patch)] = patch
    try:
        found = parse(bytes(damaged[:cut]))
    except PerfDataError:
        return
    add_machine(Gathered(), found, ("g", "", "", "", "", "", "7"))
    assert all(len(name) <= 256 for name in found)


@pytest.mark.parametrize("data", [b"", b"\0" * 64, RECORDED[:31], b"\xca\xfe\xc0\xc0\x07" + RECORDED[5:]])
def test_other_bytes_are_an_error(data: bytes) -> None:
    with pytest.raises(PerfDataError):
        parse(data)


def test_a_running_virtual_machine_is_found(tmp_path: Path) -> None:
    if shutil.which("java") is None:
        pytest.skip("java is not installed; the recorded file is read instead")
    (tmp_path / "Idle.java").write_text(PROGRAM)
    command = ["java", "-Xmx32m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", str(tmp_path / "Idle.java")]
    java = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert java.stdout is not None
        assert java.stdout.readline() == b"ready\n"
        scan = ProcessScan(GroupNames())
        scan.run()
        source = JvmSource(scan)
        deadline = time.monotonic() + 5
        while True:
            gathered = Gathered()
            source.collect(gathered)
            own = {key[0]: key[2] for key in gathered.values if key[2][-1:] == (str(java.pid),)}
            if own or time.monotonic() > deadline:
                break
        assert own["jvm_threads_current"] == ("java:Idle.java", "", "", "", "", "", str(java.pid))
        assert source.errors == {}
    finally:
        java.kill()
        java.communicate()
