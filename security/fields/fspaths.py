"""The parameters of calls that `fs.path.*` shows, for calls that succeeded."""

from __future__ import annotations

_ROWS = """
name=path: mkdir mkdirat rmdir unlink chown lchown
name=name: unlinkat open openat openat2 umount umount2
name=filename: chmod fchmodat
name=fd: fchmod fchown
name=pathname: fchownat
source=oldpath target=newpath: rename renameat renameat2
source=newpath target=oldpath: link linkat
source=linkpath target=target: symlink symlinkat
source=dev target=dir: mount
"""


def _table() -> dict[str, dict[str, str]]:
    table = {}
    for line in _ROWS.strip().splitlines():
        parts, _, calls = line.partition(":")
        parameters = dict(part.split("=") for part in parts.split())
        table.update(dict.fromkeys(calls.split(), parameters))
    return table


FS_PATHS = _table()
"""By call: which parameter is the `name`, the `source` and the `target`; `fd` is the path of the descriptor.
The source of a link is the new name, as upstream has it."""
