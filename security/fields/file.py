"""Fields of descriptors and paths."""

from __future__ import annotations

from security.fields.table import FieldInfo, rows

_FILE = """
fd.num INT64 | the descriptor, -1 when the creating call failed
fd.type CHARBUF | file, directory, ipv4, ipv6, unix, pipe, event, ...
fd.typechar CHARBUF | the type as one character
fd.name CHARBUF | absolute path, connection or socket path
fd.nameraw CHARBUF | the path as passed
fd.directory CHARBUF | directory of the path
fd.filename CHARBUF | last part of the path
fd.containername CHARBUF | container and name
fd.containerdirectory CHARBUF | container and directory
fd.uid CHARBUF | an id of the descriptor over all processes
fd.dev INT32 | device number
fd.dev.major INT32 | major device number
fd.dev.minor INT32 | minor device number
fd.ino INT64 | inode
fd.types CHARBUF Lai | types of all descriptors of the call
fd.is_upper_layer BOOL | the file is in the upper layer of an overlay
fd.is_lower_layer BOOL | the file is in the lower layer of an overlay
fs.path.name CHARBUF | path a call without descriptor works on
fs.path.nameraw CHARBUF | the same as passed
fs.path.source CHARBUF | path it comes from
fs.path.sourceraw CHARBUF | the same as passed
fs.path.target CHARBUF | path it goes to
fs.path.targetraw CHARBUF | the same as passed
fdlist.nums CHARBUF | descriptors of a poll
fdlist.names CHARBUF | their names
fdlist.cips CHARBUF | their client addresses
fdlist.sips CHARBUF | their server addresses
fdlist.cports CHARBUF | their client ports
fdlist.sports CHARBUF | their server ports
"""


def fields() -> list[FieldInfo]:
    """Fields of descriptors and paths."""
    return rows("file", ("syscall",), _FILE)
