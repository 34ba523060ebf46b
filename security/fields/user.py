"""Fields of users and groups, and of the system log."""

from __future__ import annotations

from security.fields.table import FieldInfo, rows

_USER = """
user.uid UINT32 | effective user id
user.name CHARBUF | name of the effective user
user.homedir CHARBUF | home directory
user.shell CHARBUF | login shell
user.loginuid INT64 | user that logged in, -1 when unset
user.loginname CHARBUF | name of that user
group.gid UINT32 | group id
group.name CHARBUF | name of the group
syslog.facility CHARBUF | facility of a log message
syslog.facility.str CHARBUF | its name
syslog.severity CHARBUF | severity of a log message
syslog.severity.str CHARBUF | its name
syslog.message CHARBUF | the message
"""


def fields() -> list[FieldInfo]:
    """Fields of users, groups and log messages."""
    return rows("user", ("syscall",), _USER)
