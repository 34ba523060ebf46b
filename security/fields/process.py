"""Fields of processes and threads."""

from __future__ import annotations

from security.fields.table import FieldInfo, rows

_PROCESS = """
proc.exe CHARBUF | first argument the process was started with
proc.pexe CHARBUF | the same of the parent
proc.aexe CHARBUF aiTY | the same of an ancestor; 0 is the process itself, 1 the parent
proc.exepath CHARBUF | path of the executable
proc.pexepath CHARBUF | the same of the parent
proc.aexepath CHARBUF aiTY | the same of an ancestor
proc.name CHARBUF | name of the process, at most 15 characters
proc.pname CHARBUF | the same of the parent
proc.aname CHARBUF aiTY | the same of an ancestor
proc.args CHARBUF ai | arguments without the first, joined by blanks; or one of them
proc.aargs CHARBUF aiTY | the same of an ancestor
proc.cmdline CHARBUF | name and arguments
proc.pcmdline CHARBUF | the same of the parent
proc.acmdline CHARBUF aiTY | the same of an ancestor
proc.cmdnargs UINT64 | number of arguments
proc.cmdlenargs UINT64 | length of the arguments
proc.exeline CHARBUF | first argument and arguments
proc.env CHARBUF aikD | the environment, or one variable of it
proc.aenv CHARBUF aikDTY | the environment of an ancestor
proc.cwd CHARBUF | working directory with a trailing slash
proc.loginshellid INT64 | pid of the oldest shell among the ancestors
proc.tty UINT32 | device number of the controlling terminal, 0 without one
proc.pid PID | process id
proc.ppid PID | the same of the parent
proc.apid PID aiTY | the same of an ancestor
proc.vpid PID | process id in its own namespace
proc.pvpid PID | the same of the parent
proc.sid PID | session id
proc.sname CHARBUF | name of the session leader
proc.sid.exe CHARBUF | first argument of the session leader
proc.sid.exepath CHARBUF | executable of the session leader
proc.vpgid PID | process group in its own namespace
proc.vpgid.name CHARBUF | name of the group leader
proc.vpgid.exe CHARBUF | first argument of the group leader
proc.vpgid.exepath CHARBUF | executable of the group leader
proc.pgid PID | process group
proc.pgid.name CHARBUF | name of the group leader
proc.pgid.exe CHARBUF | first argument of the group leader
proc.pgid.exepath CHARBUF | executable of the group leader
proc.duration RELTIME | nanoseconds since the start of the process
proc.ppid.duration RELTIME | the same of the parent
proc.pid.ts RELTIME | start of the process
proc.ppid.ts RELTIME | start of the parent
proc.is_exe_writable BOOL | the process's user may write its executable
proc.is_exe_upper_layer BOOL | the executable is in the upper layer of an overlay
proc.is_exe_lower_layer BOOL | the executable is in the lower layer of an overlay
proc.is_exe_from_memfd BOOL | the executable is an anonymous file
proc.is_sid_leader BOOL | the process leads its session
proc.is_vpgid_leader BOOL | the process leads its group in its namespace
proc.is_pgid_leader BOOL | the process leads its group
proc.exe_ino INT64 | inode of the executable
proc.exe_ino.ctime ABSTIME | last change of that inode
proc.exe_ino.mtime ABSTIME | last change of the executable's content
proc.exe_ino.ctime_duration_proc_start ABSTIME | from that change to the start of the process
proc.exe_ino.ctime_duration_pidns_start ABSTIME | from that change to the start of the namespace
proc.pidns_init_start_ts UINT64 | start of the pid namespace
thread.cap_permitted CHARBUF | permitted capabilities
thread.cap_inheritable CHARBUF | inheritable capabilities
thread.cap_effective CHARBUF | effective capabilities
proc.cmdlinehash CHARBUF | hash of the command line
proc.fdopencount UINT64 | open descriptors
proc.fdlimit INT64 | limit of descriptors
proc.fdusage DOUBLE | part of that limit in use, in percent
proc.vmsize UINT64 | virtual memory in KiB
proc.vmrss UINT64 | resident memory in KiB
proc.vmswap UINT64 | swapped memory in KiB
thread.pfmajor UINT64 | major page faults
thread.pfminor UINT64 | minor page faults
thread.tid PID | thread id
thread.ismain BOOL | the thread is the main one
thread.vtid PID | thread id in its own namespace
thread.nametid CHARBUF P | name and thread id
thread.exectime RELTIME | processor time since the last switch
thread.totexectime RELTIME | processor time in all
thread.cgroups CHARBUF | control groups
thread.cgroup CHARBUF AkD | control group of one controller
thread.cpu DOUBLE | processor use in the last second, in percent of a core
thread.cpu.user DOUBLE | the same in user mode
thread.cpu.system DOUBLE | the same in kernel mode
thread.vmsize UINT64 | virtual memory of the main thread
thread.vmrss UINT64 | resident memory of the main thread
proc.nthreads UINT64 | number of threads
proc.nchilds UINT64 | number of child threads
proc.stdin.type CHARBUF | type of the standard input
proc.stdout.type CHARBUF | type of the standard output
proc.stderr.type CHARBUF | type of the standard error
proc.stdin.name CHARBUF | name of the standard input
proc.stdout.name CHARBUF | name of the standard output
proc.stderr.name CHARBUF | name of the standard error
"""


def fields() -> list[FieldInfo]:
    """Fields of processes and threads."""
    return rows("process", ("syscall",), _PROCESS)
