"""Fields of the event itself."""

from __future__ import annotations

from security.fields.table import SOURCES, FieldInfo, rows

_ANY_SOURCE = """
evt.num UINT64 | number of the event, counted from 1
evt.time CHARBUF | time of day with nanoseconds
evt.time.s CHARBUF | time of day with seconds
evt.time.iso8601 CHARBUF | date and time in ISO 8601 with nanoseconds
evt.datetime CHARBUF | date and time with nanoseconds
evt.datetime.s CHARBUF | date and time with seconds
evt.rawtime ABSTIME | nanoseconds since the epoch
evt.rawtime.s ABSTIME | whole seconds since the epoch
evt.rawtime.ns ABSTIME | the fractional part of the time in nanoseconds
evt.reltime RELTIME | nanoseconds since the first event
evt.reltime.s RELTIME | whole seconds since the first event
evt.reltime.ns RELTIME | the fractional part of the time since the first event
evt.pluginname CHARBUF | name of the source's plugin, for events that are not system calls
evt.plugininfo CHARBUF | one-line summary given by the source
evt.source CHARBUF | name of the event source
evt.is_async BOOL | whether the event came outside of the stream
evt.asynctype CHARBUF | type of an asynchronous event
evt.hostname CHARBUF | name of the host
"""

_SYSCALL = """
evt.latency RELTIME | not available, since there are no enter events
evt.latency.s RELTIME | not available, since there are no enter events
evt.latency.ns RELTIME | not available, since there are no enter events
evt.latency.human CHARBUF | not available, since there are no enter events
evt.wait_latency RELTIME | not available, since there are no enter events
evt.deltatime RELTIME | nanoseconds since the event before
evt.deltatime.s RELTIME | whole seconds since the event before
evt.deltatime.ns RELTIME | fractional part of the time since the event before
evt.outputtime CHARBUF P | time in the format of the output
evt.dir CHARBUF | always `<`: only exit events exist
evt.type CHARBUF | name of the system call or event
evt.type.is UINT32 Ak | 1 when the event is of the type in the argument
syscall.type CHARBUF | name of the system call, missing for other events
evt.category CHARBUF | kind of the event: file, net, process, ...
evt.cpu INT32 | processor the event happened on
evt.args CHARBUF | all parameters as name=value
evt.arg CHARBUF AikD | one parameter by name or position, resolved to text
evt.rawarg CHARBUF AkDT | one parameter by name, as a number where it is one
evt.info CHARBUF | the same as the arguments
evt.buffer BYTEBUF | bytes read or written
evt.buflen UINT64 | length of these bytes
evt.res CHARBUF | SUCCESS or the symbol of the error
evt.rawres INT64 | the return value
evt.failed BOOL | whether the call returned an error
evt.is_io BOOL | whether it reads or writes
evt.is_io_read BOOL | whether it reads
evt.is_io_write BOOL | whether it writes
evt.io_dir CHARBUF | r or w
evt.is_wait BOOL | whether it waits
evt.is_syslog BOOL | whether it writes to the system log
evt.count UINT32 | always 1
evt.count.error UINT32 | 1 for a failed call
evt.count.error.file UINT32 | 1 for a failed call on a file
evt.count.error.net UINT32 | 1 for a failed call on a socket
evt.count.error.memory UINT32 | 1 for a failed memory call
evt.count.error.other UINT32 | 1 for any other failed call
evt.count.exit UINT32 | 1 for exit events
evt.around UINT64 AkFT | whether the event is near a moment
evt.abspath CHARBUF ak | absolute path of a call with a directory and a name
evt.buflen.in UINT64 | bytes read
evt.buflen.out UINT64 | bytes written
evt.buflen.file UINT64 | bytes of file traffic
evt.buflen.file.in UINT64 | bytes read from files
evt.buflen.file.out UINT64 | bytes written to files
evt.buflen.net UINT64 | bytes of network traffic
evt.buflen.net.in UINT64 | bytes received
evt.buflen.net.out UINT64 | bytes sent
evt.is_open_read BOOL | the file is opened for reading
evt.is_open_write BOOL | the file is opened for writing
evt.is_open_exec BOOL | a file with an execute bit is created
evt.is_open_create BOOL | a file is created
"""


def fields() -> list[FieldInfo]:
    """Fields of every source, and those of system calls."""
    return rows("evt", SOURCES, _ANY_SOURCE) + rows("evt", ("syscall",), _SYSCALL)
