"""Memory of the compiler is given back, and kernels still compile afterwards."""

from __future__ import annotations

import subprocess
import sys

from agent.memory import unchanged_mappings

SMAPS = """\
7f00-8f00 r--p 00000000 fe:00 1   /x/libllvmlite.so
Rss:                   8 kB
Anonymous:             0 kB
8f00-9f00 r-xp 00001000 fe:00 1   /x/libllvmlite.so
Rss:                   4 kB
Anonymous:             0 kB
9f00-af00 r--p 00002000 fe:00 1   /x/libllvmlite.so
Rss:                   4 kB
Anonymous:             4 kB
af00-bf00 rw-p 00003000 fe:00 1   /x/libllvmlite.so
Rss:                   4 kB
Anonymous:             0 kB
bf00-cf00 r-xp 00000000 fe:00 2   /x/other.so
Rss:                   4 kB
Anonymous:             0 kB
cf00-df00 r--p 00000000 00:00 0
Rss:                   4 kB
Anonymous:             0 kB
"""

PROGRAM = """
from numba import njit
from agent.memory import release_after_load
first = njit(lambda x: x + 1)
assert first(1) == 2
released = release_after_load()
assert first(2) == 3 and njit(lambda x: x * 3)(2) == 6
print(released)
"""


def test_only_what_is_as_in_the_file_is_given_back() -> None:
    assert unchanged_mappings(SMAPS, "libllvmlite.so") == [
        (0x7F00, 0x1000, 8192),
        (0x8F00, 0x1000, 4096),
    ]


def test_the_compiler_works_after_its_pages_are_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 10 << 20
