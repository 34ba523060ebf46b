"""One run of a check: a process with limits of time, memory, processor and output."""

from __future__ import annotations

import os
import pwd
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from agent.checks.config import CheckProgram

OUTPUT_BYTES_LIMIT = 1 << 20
ERROR_BYTES_LIMIT = 4096
CPU_SECONDS_LIMIT = 10
LOOK_SECONDS = 0.25
"""How often a run looks whether it shall end."""
_LIMITS = 'ulimit -v "$1" && ulimit -t "$2" && shift 2 && exec "$@"'
_READ_BYTES = 64 << 10


class CheckFailure(Exception):
    """A run gave no metrics; `reason` is a word for the counter."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def run_program(program: CheckProgram, stopping: threading.Event | None = None) -> bytes:
    """What one run prints. The process and its children are gone after.

    Raises CheckFailure, OSError, or KeyError for a user that there is not.

    Waits; for a thread of its own.
    """
    with _started(program) as process:
        output, errors = _read(process, program, stopping or threading.Event())
        try:
            status = process.wait(LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            raise CheckFailure("timeout", "closed its output and did not end") from None
    if status:
        last = (errors.decode("utf-8", "replace").strip().splitlines() or [""])[-1]
        raise CheckFailure("failed", f"status {status}: {last}")
    return output


@contextmanager
def _started(program: CheckProgram) -> Iterator[subprocess.Popen[bytes]]:
    limits = (str(program.memory_bytes >> 10), str(CPU_SECONDS_LIMIT))
    process = subprocess.Popen(
        ["/bin/sh", "-c", _LIMITS, "check", *limits, *program.command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        user=program.user or None,
        group=pwd.getpwnam(program.user).pw_gid if program.user else None,
        extra_groups=[] if program.user else None,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def _read(
    process: subprocess.Popen[bytes], program: CheckProgram, stopping: threading.Event
) -> tuple[bytes, bytes]:
    """Output and the first bytes of the error output, when both have ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with suppress(BrokenPipeError):
        # Settings fit into the pipe, so that this never waits.
        process.stdin.write(program.settings)
        process.stdin.close()
    output, errors = bytearray(), bytearray()
    deadline = time.monotonic() + program.timeout_seconds
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, output)
        selector.register(process.stderr, selectors.EVENT_READ, errors)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                raise CheckFailure("timeout", f"took more than {program.timeout_seconds:g} s")
            if stopping.is_set():
                raise CheckFailure("stopped", "the agent stops")
            for key, _ in selector.select(min(left, LOOK_SECONDS)):
                part = os.read(key.fd, _READ_BYTES)
                if not part:
                    selector.unregister(key.fileobj)
                key.data.extend(part)
            del errors[ERROR_BYTES_LIMIT:]
            if len(output) > OUTPUT_BYTES_LIMIT:
                raise CheckFailure("output", f"printed more than {OUTPUT_BYTES_LIMIT} bytes")
    return bytes(output), bytes(errors)
