"""A short-lived process that compiles and loads the BPF program and hands its descriptors to the agent.

The compiler leaves some 100 MiB behind in its process; here that process ends. Programs, maps and
attachments live as long as the descriptors do, so they go with the agent, however it ends. Started by
`agent.probe.program` with a socket as standard input; reads one JSON request, answers one JSON message.
"""

from __future__ import annotations

import array
import ctypes
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from agent.probe.headers import Headers, kernel_source

REQUEST_BYTES_LIMIT = 1 << 20
DISTRIBUTION_PACKAGES = "/usr/lib/python3/dist-packages"
MAPS = ("ring", "actions", "settings", "sent", "lost", "costs_a", "costs_b", "costs_left_over")
SOURCES = tuple(
    Path(__file__).with_name(name) for name in ("records.h", "reads.h", "objects.h", "costs.h", "probe.c")
)
"""The program, in the order in which its parts build on each other."""
_RAW_TRACEPOINT = 17


def import_bcc() -> Any:
    """The compiler's module, which Debian installs for its own interpreter. Raises ImportError."""
    try:
        import bcc
    except ImportError:
        sys.path.append(DISTRIBUTION_PACKAGES)
        import bcc
    return bcc


def load(request: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    """Compile, load and attach. Returns the answer and the descriptors: maps in order, then attachments."""
    bcc = import_bcc()
    flags = ["-Wno-macro-redefined", "-Wno-unused-function"]
    flags += [f"-D{name}={value}" for name, value in request["defines"].items()]
    found = Headers(request["headers"]["kind"], tuple(Path(path) for path in request["headers"]["trees"]))
    functions = [function for _, function in request["tracepoints"]]
    with kernel_source(found):
        direct = bool(request["direct"])
        try:
            module, programs = _compile(bcc, [*flags, f"-DDIRECT={int(direct)}"], functions)
        except Exception:
            if not direct:
                raise
            # An older verifier does not follow the members of a typed pointer; probe reads cost more.
            direct = False
            module, programs = _compile(bcc, [*flags, "-DDIRECT=0"], functions)
    descriptors = [bcc.lib.bpf_table_fd(module.module, name.encode()) for name in MAPS]
    attached, failed = [], []
    for (tracepoint, _), program in zip(request["tracepoints"], programs, strict=True):
        ctypes.set_errno(0)
        descriptor = bcc.lib.bpf_attach_raw_tracepoint(program.fd, tracepoint.encode())
        if descriptor < 0:
            failed.append(tracepoint)
            continue
        attached.append(tracepoint)
        descriptors.append(descriptor)
    return {"attached": attached, "failed": failed, "direct": direct}, descriptors


def _compile(bcc: Any, flags: list[str], functions: list[str]) -> tuple[Any, list[Any]]:
    """The module and its functions as the kernel accepted them. Raises what the compiler raises."""
    # Each part keeps its name and lines in what the compiler says.
    text = "\n".join(f'#line 1 "{path.name}"\n{path.read_text(encoding="utf-8")}' for path in SOURCES)
    module = bcc.BPF(text=text, cflags=flags)
    return module, [module.load_func(name.encode(), _RAW_TRACEPOINT) for name in functions]


def main() -> int:
    """Answer the one request on standard input."""
    channel = socket.socket(fileno=os.dup(0))
    text = bytearray()
    while chunk := channel.recv(1 << 16):
        text += chunk
        if len(text) > REQUEST_BYTES_LIMIT:
            print(f"request has more than the limit of {REQUEST_BYTES_LIMIT} bytes", file=sys.stderr)
            return 1
    descriptors: list[int] = []
    try:
        answer, descriptors = load(json.loads(text))
    except Exception as error:
        # Whatever the compiler raises is the reason that the agent shows.
        answer = {"error": f"{type(error).__name__}: {error}"}
    data = json.dumps(answer).encode()
    if descriptors:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
        channel.sendmsg([data], [rights])
    else:
        channel.send(data)
    channel.close()
    return 0


if __name__ == "__main__":
    # Skips the compiler's exit handlers; the kernel keeps what was passed on.
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
