"""The parameters of each event, in upstream's order (security-surface.md 4.1): data only.

One line an event: names of calls, then `name=kind` or `name=kind:which`. `which` is the number of an argument
from 0 on, or of a path from 1 on. The kinds are the methods of `agent.events.Renderer`.
"""

from __future__ import annotations

from dataclasses import dataclass

_TABLE = """
execve: @exec filename=given:1
execveat: @exec
open: fd=new name=path:1 flags=opening:1 mode=octal:2 dev=dev ino=ino
openat: fd=new dirfd=directory:0 name=path:1 flags=opening:2 mode=octal:3 dev=dev ino=ino
openat2: fd=new dirfd=directory:0 name=path:1 flags=how:0 mode=how:1 resolve=how:2 dev=dev ino=ino
creat: fd=new name=path:1 mode=octal:1 dev=dev ino=ino creat_flags=zero
connect: res=res tuple=addresses fd=fd:0 addr=addr
bind: res=res addr=addr fd=fd:0
accept: fd=new tuple=addresses queuepct=percent queuelen=queue:0 queuemax=queue:1
accept4: fd=new tuple=addresses queuepct=percent queuelen=queue:0 queuemax=queue:1 flags=number:3
listen: res=res fd=fd:0 backlog=number:1
sendto: res=res data=data fd=fd:0 size=uint:2 tuple=addresses
sendmsg: res=res data=data fd=fd:0 size=result tuple=addresses
recvfrom: res=res data=data tuple=received fd=fd:0 size=uint:2
recvmsg: res=res size=result data=data tuple=received fd=fd:0
socket: fd=new domain=family:0 type=number:1 proto=number:2
dup: res=res oldfd=fd:0
dup2: res=res oldfd=fd:0 newfd=number:1
dup3: res=res oldfd=fd:0 newfd=number:1 flags=opening:2
symlink: res=res target=given:1 linkpath=path:2
symlinkat: res=res target=given:1 linkdirfd=directory:1 linkpath=path:2
link: res=res oldpath=path:1 newpath=path:2
linkat: res=res olddir=directory:0 oldpath=path:1 newdir=directory:2 newpath=path:2 flags=at:4
unlink: res=res path=path:1
unlinkat: res=res dirfd=directory:0 name=path:1 flags=at:2
rmdir: res=res path=path:1
rename: res=res oldpath=path:1 newpath=path:2
renameat: res=res olddirfd=directory:0 oldpath=path:1 newdirfd=directory:2 newpath=path:2
renameat2: res=res olddirfd=directory:0 oldpath=path:1 newdirfd=directory:2 newpath=path:2 flags=rename:4
mkdir: res=res path=path:1 mode=octal:1
mkdirat: res=res dirfd=directory:0 path=path:1 mode=octal:2
mknod: res=res path=path:1 mode=mode:1 dev=uint:2
mknodat: res=res dirfd=directory:0 path=path:1 mode=mode:2 dev=uint:3
chmod: res=res filename=path:1 mode=mode:1
fchmod: res=res fd=fd:0 mode=mode:1
fchmodat fchmodat2: res=res dirfd=directory:0 filename=path:1 mode=mode:2
chown lchown: res=res path=path:1 uid=user:1 gid=uint:2
fchown: res=res fd=fd:0 uid=user:1 gid=uint:2
fchownat: res=res dirfd=directory:0 pathname=path:1 uid=user:2 gid=uint:3 flags=at:4
setuid: res=res uid=user:0
setgid: res=res gid=uint:0
setreuid: res=res ruid=user:0 euid=user:1
setregid: res=res rgid=uint:0 egid=uint:1
setresuid: res=res ruid=user:0 euid=user:1 suid=user:2
setresgid: res=res rgid=uint:0 egid=uint:1 sgid=uint:2
setns: res=res fd=fd:0 nstype=namespaces:1
unshare: res=res flags=clone:0
ptrace: res=res addr=hexadecimal:2 data=hexadecimal:3 request=ptrace:0 pid=number:1
bpf: fd=res cmd=bpf:0
init_module: res=res img=hexadecimal:0 length=uint:1 uargs=given:1
finit_module: res=res fd=fd:0 uargs=given:1 flags=number:2
userfaultfd: res=res flags=number:0
chdir: res=res path=path:1
fchdir: res=res fd=fd:0
chroot: res=res path=path:1
mount: res=res dev=given:1 dir=path:2 flags=hexadecimal:3
umount2: res=res name=path:1 flags=number:1
memfd_create: fd=new name=given:1 flags=memfd:1
kill: res=res pid=number:0 sig=number:1
prctl: res=res option=number:0 arg2=uint:1
capset: res=res
clone: res=res flags=clone:0
clone3 fork vfork setsid: res=res
setpgid: res=res pid=number:0 pgid=number:1
procexit: status=status ret=code sig=signal core=core
"""

_EXECUTION = (
    "res=res exe=exe args=arguments tid=head:tid pid=head:pid ptid=head:ppid cwd=cwd fdlimit=of:fd_limit "
    "pgft_maj=of:major_faults pgft_min=of:minor_faults vm_size=kib:size_pages vm_rss=kib:rss_pages "
    "vm_swap=kib:swap_pages comm=comm cgroups=cgroups env=environment tty=of:tty vpgid=of:vpgid "
    "loginuid=login flags=execution cap_inheritable=capability:inheritable "
    "cap_permitted=capability:permitted cap_effective=capability:effective exe_ino=of:exe_inode "
    "exe_ino_ctime=of:exe_ctime_ns exe_ino_mtime=of:exe_mtime_ns uid=owner trusted_exepath=exepath "
    "pgid=of:pgid gid=head:gid"
)


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """How one parameter is made: a method of the renderer, and which argument or member it takes."""

    name: str
    kind: str
    which: str


def _specs(text: str) -> tuple[ParameterSpec, ...]:
    found = []
    for word in text.replace("@exec", _EXECUTION).split():
        name, _, kind = word.partition("=")
        kind, _, which = kind.partition(":")
        found.append(ParameterSpec(name, kind, which))
    return tuple(found)


def parameter_table() -> dict[str, tuple[ParameterSpec, ...]]:
    """Parameters by system call name; ``procexit`` stands for the end of a process."""
    table = {}
    for line in _TABLE.strip().splitlines():
        calls, _, text = line.partition(":")
        table.update(dict.fromkeys(calls.split(), _specs(text)))
    return table


ALIASES = {"fchmodat2": "fchmodat"}
"""Calls without an event of their own, and the event they are reported as."""
EXIT_EVENT = "procexit"
FORK_EVENT = "newtask"
"""Record of a new process; it feeds the process table and is not an event of its own for rules."""
