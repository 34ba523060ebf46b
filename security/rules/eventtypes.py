"""Names of events, and which of them a condition can match at all (security-surface.md 1.6).

The set of a condition is found bottom up: a comparison of `evt.type` names its events, every other check is
neutral, `and` intersects, `or` joins, and a negation is pushed down to the leaves.
"""

from __future__ import annotations

from functools import lru_cache

from security.rules.ast import And, Compare, Exists, Macro, Node, Not, Or, children_first

EVENT_CODES_WARNING = 100
# Every event has an enter and an exit code.
_CODES_PER_NAME = 2

_SYSCALLS = """
    _llseek _newselect _sysctl accept accept4 access acct add_key adjtimex afs_syscall alarm arch_prctl
    bdflush bind bpf break brk cachestat capget capset chdir chmod chown chown32 chroot clock_adjtime
    clock_getres clock_gettime clock_nanosleep clock_settime clone clone3 close close_range connect
    copy_file_range creat create_module delete_module dup dup2 dup3 epoll_create epoll_create1 epoll_ctl
    epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat
    exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_init fanotify_mark
    fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr
    finit_module flistxattr flock fork fremovexattr fsconfig fsetxattr fsmount fsopen fspick fstat
    fstat64 fstatat64 fstatfs fstatfs64 fsync ftime ftruncate ftruncate64 futex futex_requeue futex_wait
    futex_waitv futex_wake futimesat get_kernel_syms get_mempolicy get_robust_list get_thread_area
    getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups
    getgroups32 getitimer getpeername getpgid getpgrp getpid getpmsg getppid getpriority getrandom
    getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid
    gettimeofday getuid getuid32 getxattr getxattrat gtty idle init_module inotify_add_watch
    inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup
    io_submit io_uring_enter io_uring_register io_uring_setup ioctl ioperm iopl ioprio_get ioprio_set
    ipc kcmp kexec_file_load kexec_load keyctl kill landlock_add_rule landlock_create_ruleset
    landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr listxattrat
    llistxattr lock lookup_dcookie lremovexattr lseek lsetxattr lsm_get_self_attr lsm_list_modules
    lsm_set_self_attr lstat lstat64 madvise map_shadow_stack mbind membarrier memfd_create memfd_secret
    migrate_pages mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 modify_ldt mount
    mount_setattr move_mount move_pages mprotect mpx mq_getsetattr mq_notify mq_open mq_timedreceive
    mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap
    name_to_handle_at nanosleep newfstatat nfsservctl nice oldfstat oldlstat oldolduname oldstat
    olduname open open_by_handle_at open_tree open_tree_attr openat openat2 pause perf_event_open
    personality pidfd_getfd pidfd_open pidfd_send_signal pipe pipe2 pivot_root pkey_alloc pkey_free
    pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64 process_madvise process_mrelease
    process_vm_readv process_vm_writev prof profil pselect6 ptrace putpmsg pwrite64 pwritev pwritev2
    query_module quotactl quotactl_fd read readahead readdir readlink readlinkat readv reboot recvfrom
    recvmmsg recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2 request_key
    restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
    rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min
    sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp security
    select semctl semget semop semtimedop sendfile sendfile64 sendmmsg sendmsg sendto set_mempolicy
    set_mempolicy_home_node set_robust_list set_thread_area set_tid_address setdomainname setfsgid
    setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 sethostname setitimer setns
    setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid
    setreuid32 setrlimit setsid setsockopt settimeofday setuid setuid32 setxattr setxattrat sgetmask
    shmat shmctl shmdt shmget shutdown sigaction sigaltstack signal signalfd signalfd4 sigpending
    sigprocmask sigreturn sigsuspend socket socketcall socketpair splice ssetmask stat stat64 statfs
    statfs64 statmount statx stime stty swapoff swapon symlink symlinkat sync sync_file_range syncfs
    sysfs sysinfo syslog tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime
    timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill truncate truncate64 tuxcall
    ugetrlimit ulimit umask umount umount2 uname unlink unlinkat unshare uprobe uretprobe uselib
    userfaultfd ustat utime utimensat utimes vfork vhangup vm86 vm86old vmsplice vserver wait4 waitid
    waitpid write writev
"""
_OTHERS = """
    NA switch syscall drop procexit sysdigevent signaldeliver procinfo cpu_hotplug k8s mesos infra
    notification page_fault pluginevent asyncevent container tracer useradded userdeleted groupadded
    groupdeleted scapevent
"""


@lru_cache(maxsize=1)
def syscall_names() -> frozenset[str]:
    """Names of all system calls of x86-64 and i386."""
    return frozenset(_SYSCALLS.split())


@lru_cache(maxsize=1)
def event_names() -> frozenset[str]:
    """Every value that `evt.type` can have."""
    return syscall_names() | frozenset(_OTHERS.split())


def event_types(root: Node) -> frozenset[str] | None:
    """The event names that can make a condition true; None means any."""
    positive: dict[int, frozenset[str]] = {}
    negative: dict[int, frozenset[str]] = {}
    for node in children_first(root):
        key = id(node)
        if isinstance(node, Not):
            positive[key], negative[key] = negative[id(node.child)], positive[id(node.child)]
        elif isinstance(node, (And, Or)):
            positive[key] = _join(node, [positive[id(child)] for child in node.children], False)
            negative[key] = _join(node, [negative[id(child)] for child in node.children], True)
        elif isinstance(node, Macro):
            positive[key] = negative[key] = event_names()
        else:
            positive[key], negative[key] = _of_check(node, False), _of_check(node, True)
    found = positive[id(root)]
    return None if found == event_names() else found


def matches_too_many(types: frozenset[str] | None) -> bool:
    """Whether LOAD_NO_EVTTYPE is due."""
    return types is None or len(types) * _CODES_PER_NAME > EVENT_CODES_WARNING


def _join(node: And | Or, parts: list[frozenset[str]], negated: bool) -> frozenset[str]:
    if isinstance(node, And) != negated:
        return frozenset.intersection(*parts)
    return frozenset.union(*parts)


def _of_check(check: Compare | Exists, negated: bool) -> frozenset[str]:
    name = getattr(check.left, "name", "")
    if isinstance(check, Compare) and check.right is None and check.modifier is None:
        if name == "evt.type" and check.operator in ("=", "==", "!=", "in", "intersects"):
            named = event_names() & frozenset(check.values)
            return event_names() - named if (check.operator == "!=") != negated else named
        if name == "evt.num" and check.operator in ("=", "==") and check.values == ("0",):
            return event_names() if negated else frozenset()
    return event_names()
