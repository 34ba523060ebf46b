"""The events of captures: number, name and parameters (data only; security-surface.md 8.1).

A row is `number direction category name` and `parameter:type` words. `>` is the entry of a call, `<` its
exit; `!` is an event without a call, `-` one that rules do not see. Parameters of exits are in today's order:
older captures have only the first of them and the rest is taken from the entry. Rows whose parameters do not
begin like today's were replaced by another number upstream. Types are those of `parametertypes`; an indented
line continues the one before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

_EXECUTION = (
    "exe:text args:list tid:pid pid:pid ptid:pid cwd:text fdlimit:uint pgft_maj:uint pgft_min:uint "
    "vm_size:uint vm_rss:uint vm_swap:uint"
)
_ROWS = f"""
0 > other syscall ID:uint nativeID:uint
1 < other syscall ID:uint nativeID:uint
2 > file open name:path flags:open mode:oct
3 < file open fd:fd name:path flags:open mode:oct dev:hex ino:uint
4 > io close fd:fd
5 < io close res:errno fd:fd
6 > read read fd:fd size:uint
7 < read read res:errno data:bytes fd:fd size:uint
8 > write write fd:fd size:uint
9 < write write res:errno data:bytes fd:fd size:uint
10 > memory brk addr:hex
11 < memory brk res:hex
12 > process execve
13 < process execve res:errno exe:text args:list tid:pid pid:pid ptid:pid cwd:text fdlimit:uint
14 > process clone
15 < process clone res:pid exe:text args:list tid:pid pid:pid ptid:pid cwd:text fdlimit:int flags:clone
  uid:uid gid:gid
16 ! process procexit
18 > net socket domain:family type:uint proto:uint
19 < net socket fd:fd domain:family type:uint proto:uint
20 > net bind fd:fd
21 < net bind res:errno addr:addr fd:fd
22 > net connect fd:fd addr:addr
23 < net connect res:errno tuple:tuple fd:fd addr:addr
24 > net listen fd:fd backlog:int
25 < net listen res:errno fd:fd backlog:int
26 > net accept
27 < net accept fd:fd tuple:tuple queuepct:uint
28 > write send fd:fd size:uint
29 < write send res:errno data:bytes fd:fd size:uint tuple:tuple
30 > write sendto fd:fd size:uint tuple:tuple
31 < write sendto res:errno data:bytes fd:fd size:uint tuple:tuple
32 > read recv fd:fd size:uint
33 < read recv res:errno data:bytes fd:fd size:uint tuple:tuple
34 > read recvfrom fd:fd size:uint
35 < read recvfrom res:errno data:bytes tuple:tuple fd:fd size:uint
36 > net shutdown fd:fd how:uint
37 < net shutdown res:errno fd:fd how:uint
38 > net getsockname
39 < net getsockname
40 > net getpeername
41 < net getpeername
42 > ipc socketpair domain:family type:uint proto:uint
43 < ipc socketpair res:errno fd1:fd fd2:fd source:hex peer:hex domain:family type:uint proto:uint
44 > net setsockopt
45 < net setsockopt res:errno fd:fd level:uint optname:uint val:bytes optlen:uint
46 > net getsockopt
47 < net getsockopt res:errno fd:fd level:uint optname:uint val:bytes optlen:uint
48 > write sendmsg fd:fd size:uint tuple:tuple
49 < write sendmsg res:errno data:bytes fd:fd size:uint tuple:tuple
50 > write sendmmsg
51 < write sendmmsg res:errno fd:fd size:uint data:bytes tuple:tuple
52 > read recvmsg fd:fd
53 < read recvmsg res:errno size:uint data:bytes tuple:tuple msgcontrol:bytes fd:fd
54 > read recvmmsg
55 < read recvmmsg res:errno fd:fd size:uint data:bytes tuple:tuple msgcontrol:bytes
56 > net accept4 flags:int
57 < net accept4 fd:fd tuple:tuple queuepct:uint
58 > file creat name:path mode:oct
59 < file creat fd:fd name:path mode:oct dev:hex ino:uint creat_flags:open
60 > ipc pipe
61 < ipc pipe res:errno fd1:fd fd2:fd ino:uint
62 > ipc eventfd initval:uint flags:hex
63 < ipc eventfd res:fd initval:uint flags:hex
64 > ipc futex addr:hex op:hex val:uint
65 < ipc futex res:errno addr:hex op:hex val:uint
66 > file stat
67 < file stat res:errno path:path
68 > file lstat
69 < file lstat res:errno path:path
70 > file fstat fd:fd
71 < file fstat res:errno fd:fd
72 > file stat64
73 < file stat64 res:errno path:path
74 > file lstat64
75 < file lstat64 res:errno path:path
76 > file fstat64 fd:fd
77 < file fstat64 res:errno fd:fd
78 > wait epoll_wait maxevents:int
79 < wait epoll_wait res:errno maxevents:int
80 > wait poll fds:bytes timeout:int
81 < wait poll res:errno fds:bytes timeout:int
82 > wait select
83 < wait select res:errno
84 > wait select
85 < wait select res:errno
86 > file lseek fd:fd offset:uint whence:uint
87 < file lseek res:errno fd:fd offset:uint whence:uint
88 > file _llseek fd:fd offset:uint whence:uint
89 < file _llseek res:errno fd:fd offset:uint whence:uint
90 > io ioctl fd:fd request:hex
91 < io ioctl res:errno fd:fd request:hex argument:hex
92 > file getcwd
93 < file getcwd res:errno path:text
94 > file chdir
95 < file chdir res:errno path:text
96 > file fchdir fd:fd
97 < file fchdir res:errno fd:fd
98 > file mkdir path:path mode:oct
99 < file mkdir res:errno path:path mode:oct
100 > file rmdir path:path
101 < file rmdir res:errno path:path
102 > file openat dirfd:fd name:relpath:dirfd flags:open mode:oct
103 < file openat fd:fd
104 > file link oldpath:path newpath:path
105 < file link res:errno
106 > file linkat olddir:fd oldpath:relpath:olddir newdir:fd newpath:relpath:newdir
107 < file linkat res:errno
108 > file unlink path:path
109 < file unlink res:errno
110 > file unlinkat dirfd:fd name:relpath:dirfd
111 < file unlinkat res:errno
112 > read pread64 fd:fd size:uint pos:uint
113 < read pread64 res:errno data:bytes fd:fd size:uint pos:uint
114 > write pwrite64 fd:fd size:uint pos:uint
115 < write pwrite64 res:errno data:bytes fd:fd size:uint pos:uint
116 > read readv fd:fd
117 < read readv res:errno size:uint data:bytes fd:fd
118 > write writev fd:fd size:uint
119 < write writev res:errno data:bytes fd:fd size:uint
120 > read preadv fd:fd pos:uint
121 < read preadv res:errno size:uint data:bytes fd:fd pos:uint
122 > write pwritev fd:fd size:uint pos:uint
123 < write pwritev res:errno data:bytes fd:fd size:uint pos:uint
124 > io dup oldfd:fd
125 < io dup res:fd oldfd:fd
126 > signal signalfd fd:fd mask:hex flags:hex
127 < signal signalfd res:fd fd:fd mask:hex flags:hex
128 > signal kill pid:pid sig:uint
129 < signal kill res:errno pid:pid sig:uint
130 > signal tkill tid:pid sig:uint
131 < signal tkill res:errno tid:pid sig:uint
132 > signal tgkill pid:pid tid:pid sig:uint
133 < signal tgkill res:errno pid:pid tid:pid sig:uint
134 > sleep nanosleep interval:uint
135 < sleep nanosleep res:errno interval:uint
136 > time timerfd_create clockid:uint flags:hex
137 < time timerfd_create res:fd clockid:uint flags:hex
138 > ipc inotify_init flags:hex
139 < ipc inotify_init res:fd flags:hex
140 > process getrlimit resource:uint
141 < process getrlimit res:errno cur:int max:int resource:uint
142 > process setrlimit resource:uint
143 < process setrlimit res:errno cur:int max:int resource:uint
144 > process prlimit64 pid:pid resource:uint
145 < process prlimit64 res:errno newcur:int newmax:int oldcur:int oldmax:int pid:pid resource:uint
146 - scheduler switch next:pid
148 - internal drop ratio:uint
149 - internal drop ratio:uint
150 > io fcntl fd:fd cmd:uint
151 < io fcntl res:fd fd:fd cmd:uint
152 - scheduler switch next:pid
154 > process execve
155 < process execve res:errno {_EXECUTION}
156 > process clone
157 < process clone res:pid {_EXECUTION} flags:clone uid:uid gid:gid
158 > memory brk addr:hex
159 < memory brk res:hex vm_size:uint vm_rss:uint vm_swap:uint addr:hex
160 > memory mmap addr:hex length:uint prot:uint flags:uint fd:fd offset:uint
161 < memory mmap res:hex vm_size:uint vm_rss:uint vm_swap:uint addr:hex length:uint prot:uint flags:uint
  fd:fd offset:uint
162 > memory mmap2 addr:hex length:uint prot:uint flags:uint fd:fd pgoffset:uint
163 < memory mmap2 res:hex vm_size:uint vm_rss:uint vm_swap:uint addr:hex length:uint prot:uint flags:uint
  fd:fd pgoffset:uint
164 > memory munmap addr:hex length:uint
165 < memory munmap res:errno vm_size:uint vm_rss:uint vm_swap:uint addr:hex length:uint
166 > io splice fd_in:fd fd_out:fd size:uint flags:hex
167 < io splice res:errno fd_in:fd fd_out:fd size:uint flags:hex
168 > process ptrace request:ptrace pid:pid
169 < process ptrace res:errno addr:dynamic data:dynamic request:ptrace pid:pid
170 > io ioctl fd:fd request:hex argument:hex
171 < io ioctl res:errno fd:fd request:hex argument:hex
172 > process execve
173 < process execve res:errno {_EXECUTION} env:list
174 > file rename
175 < file rename res:errno oldpath:path newpath:path
176 > file renameat
177 < file renameat res:errno olddirfd:fd oldpath:relpath:olddirfd newdirfd:fd newpath:relpath:newdirfd
178 > file symlink
179 < file symlink res:errno target:text linkpath:path
180 > file symlinkat
181 < file symlinkat res:errno target:text linkdirfd:fd linkpath:relpath:linkdirfd
182 > process fork
183 < process fork res:pid {_EXECUTION} flags:clone uid:uid gid:gid
184 > process vfork
185 < process vfork res:pid {_EXECUTION} flags:clone uid:uid gid:gid
186 ! process procexit status:int ret:int sig:uint core:uint reaper_tid:pid
188 > write sendfile out_fd:fd in_fd:fd offset:uint size:uint
189 < write sendfile res:errno offset:uint out_fd:fd in_fd:fd size:uint
190 > user quotactl
191 < user quotactl res:errno
192 > user setresuid ruid:uid euid:uid suid:uid
193 < user setresuid res:errno ruid:uid euid:uid suid:uid
194 > user setresgid rgid:gid egid:gid sgid:gid
195 < user setresgid res:errno rgid:gid egid:gid sgid:gid
196 - internal scapevent
198 > user setuid uid:uid
199 < user setuid res:errno uid:uid
200 > user setgid gid:gid
201 < user setgid res:errno gid:gid
202 > user getuid
203 < user getuid uid:uid
204 > user geteuid
205 < user geteuid euid:uid
206 > user getgid
207 < user getgid gid:gid
208 > user getegid
209 < user getegid egid:gid
210 > user getresuid
211 < user getresuid res:errno ruid:uid euid:uid suid:uid
212 > user getresgid
213 < user getresgid res:errno rgid:gid egid:gid sgid:gid
214 > process execve
215 < process execve res:errno {_EXECUTION} comm:text env:list
216 > process clone
217 < process clone res:pid {_EXECUTION} comm:text flags:clone uid:uid gid:gid
218 > process fork
219 < process fork res:pid {_EXECUTION} comm:text flags:clone uid:uid gid:gid
220 > process vfork
221 < process vfork res:pid {_EXECUTION} comm:text flags:clone uid:uid gid:gid
222 > process clone
223 < process clone res:pid {_EXECUTION} comm:text cgroups:list flags:clone uid:uid gid:gid vtid:pid
  vpid:pid pidns_init_start_ts:uint
224 > process fork
225 < process fork res:pid {_EXECUTION} comm:text cgroups:list flags:clone uid:uid gid:gid vtid:pid
  vpid:pid pidns_init_start_ts:uint
226 > process vfork
227 < process vfork res:pid {_EXECUTION} comm:text cgroups:list flags:clone uid:uid gid:gid vtid:pid
  vpid:pid pidns_init_start_ts:uint
228 - internal container id:text type:uint name:text image:text
230 > process execve
231 < process execve res:errno {_EXECUTION} comm:text cgroups:list env:list
232 ! signal signaldeliver spid:pid dpid:pid sig:uint
234 - internal procinfo cpu_usr:uint cpu_sys:uint
236 > file getdents fd:fd
237 < file getdents res:errno fd:fd
238 > file getdents64 fd:fd
239 < file getdents64 res:errno fd:fd
240 > process setns fd:fd nstype:clone
241 < process setns res:errno fd:fd nstype:clone
242 > file flock fd:fd operation:hex
243 < file flock res:errno fd:fd operation:hex
244 - system cpu_hotplug cpu:uint action:uint
246 > net accept
247 < net accept fd:fd tuple:tuple queuepct:uint queuelen:uint queuemax:uint
248 > net accept4 flags:int
249 < net accept4 fd:fd tuple:tuple queuepct:uint queuelen:uint queuemax:uint
250 > process semop semid:int
251 < process semop res:errno nsops:uint sem_num_0:uint sem_op_0:int sem_flg_0:hex sem_num_1:uint
  sem_op_1:int sem_flg_1:hex semid:int
252 > process semctl semid:int semnum:int cmd:hex val:int
253 < process semctl res:errno semid:int semnum:int cmd:hex val:int
254 > wait ppoll fds:bytes timeout:uint sigmask:uint
255 < wait ppoll res:errno fds:bytes timeout:uint sigmask:uint
256 > file mount flags:hex
257 < file mount res:errno dev:text dir:path type:text flags:hex
258 > file umount flags:hex
259 < file umount res:errno name:path flags:hex
260 - internal k8s json:text
262 > process semget key:hex nsems:int semflg:hex
263 < process semget res:errno key:hex nsems:int semflg:hex
264 > file access mode:hex
265 < file access res:errno name:path mode:hex
266 > process chroot
267 < process chroot res:errno path:path
268 - internal tracer
269 - internal tracer
270 - internal mesos json:text
272 - internal container json:text
274 > process setsid
275 < process setsid res:pid
276 > file mkdir mode:oct
277 < file mkdir res:errno path:path mode:oct
278 > file rmdir
279 < file rmdir res:errno path:path
280 - internal notification id:text desc:text
282 > process execve
283 < process execve res:errno {_EXECUTION} comm:text cgroups:list env:list tty:int
284 > process unshare flags:clone
285 < process unshare res:errno flags:clone
286 - internal infra
288 > process execve filename:path
289 < process execve res:errno {_EXECUTION} comm:text cgroups:list env:list tty:int
290 ! other page_fault addr:hex ip:hex error:hex
292 > process execve filename:path
293 < process execve res:errno {_EXECUTION} comm:text cgroups:list env:list tty:int vpgid:pid loginuid:int
  flags:exec cap_inheritable:hex cap_permitted:hex cap_effective:hex exe_ino:uint exe_ino_ctime:uint
  exe_ino_mtime:uint uid:uid trusted_exepath:text pgid:pid gid:gid filename:path
294 > process setpgid pid:pid pgid:pid
295 < process setpgid res:errno pid:pid pgid:pid
296 > other bpf cmd:bpf
297 < other bpf fd:dynamic
298 > other seccomp op:uint flags:hex
299 < other seccomp res:errno op:uint flags:hex
300 > file unlink
301 < file unlink res:errno path:path
302 > file unlinkat
303 < file unlinkat res:errno dirfd:fd name:relpath:dirfd flags:at
304 > file mkdirat
305 < file mkdirat res:errno dirfd:fd path:relpath:dirfd mode:oct
306 > file openat dirfd:fd name:relpath:dirfd flags:open mode:oct
307 < file openat fd:fd dirfd:fd name:relpath:dirfd flags:open mode:oct dev:hex ino:uint
308 > file link
309 < file link res:errno oldpath:path newpath:path
310 > file linkat
311 < file linkat res:errno olddir:fd oldpath:relpath:olddir newdir:fd newpath:relpath:newdir flags:at
312 > file fchmodat
313 < file fchmodat res:errno dirfd:fd filename:relpath:dirfd mode:mode
314 > file chmod
315 < file chmod res:errno filename:path mode:mode
316 > file fchmod
317 < file fchmod res:errno fd:fd mode:mode
318 > file renameat2
319 < file renameat2 res:errno olddirfd:fd oldpath:relpath:olddirfd newdirfd:fd newpath:relpath:newdirfd
  flags:rename
320 > file userfaultfd
321 < file userfaultfd res:fd flags:open
322 - internal pluginevent
324 - internal container json:text
326 > file openat2 dirfd:fd name:relpath:dirfd flags:open mode:oct resolve:uint
327 < file openat2 fd:fd dirfd:fd name:relpath:dirfd flags:open mode:oct resolve:uint dev:hex ino:uint
328 > memory mprotect addr:hex length:uint prot:uint
329 < memory mprotect res:errno addr:hex length:uint prot:uint
330 > process execveat dirfd:fd pathname:relpath:dirfd flags:uint
331 < process execveat res:errno {_EXECUTION} comm:text cgroups:list env:list tty:int vpgid:pid
  loginuid:int flags:exec cap_inheritable:hex cap_permitted:hex cap_effective:hex exe_ino:uint
  exe_ino_ctime:uint exe_ino_mtime:uint uid:uid trusted_exepath:text pgid:pid gid:gid
332 > file copy_file_range fdin:fd offin:uint len:uint
333 < file copy_file_range res:errno fdout:fd offout:uint fdin:fd offin:uint len:uint
334 > process clone3
335 < process clone3 res:pid {_EXECUTION} comm:text cgroups:list flags:clone uid:uid gid:gid vtid:pid
  vpid:pid pidns_init_start_ts:uint
336 > file open_by_handle_at
337 < file open_by_handle_at fd:fd mountfd:fd flags:open path:path dev:hex ino:uint
338 > other io_uring_setup
339 < other io_uring_setup res:fd entries:uint sq_entries:uint cq_entries:uint flags:hex
  sq_thread_cpu:uint sq_thread_idle:uint features:hex
340 > io io_uring_enter
341 < io io_uring_enter res:errno fd:fd to_submit:uint min_complete:uint flags:hex sig:uint
342 > other io_uring_register
343 < other io_uring_register res:errno fd:fd opcode:uint arg:hex nr_args:uint
344 > memory mlock
345 < memory mlock res:errno addr:hex len:uint
346 > memory munlock
347 < memory munlock res:errno addr:hex len:uint
348 > memory mlockall
349 < memory mlockall res:errno flags:hex
350 > memory munlockall
351 < memory munlockall res:errno
352 > process capset
353 < process capset res:errno cap_inheritable:hex cap_permitted:hex cap_effective:hex
354 - internal useradded uid:uint gid:uint name:text home:text shell:text container_id:text
356 - internal userdeleted uid:uint gid:uint name:text home:text shell:text container_id:text
358 - internal groupadded gid:uint name:text container_id:text
360 - internal groupdeleted gid:uint name:text container_id:text
362 > io dup2 oldfd:fd
363 < io dup2 res:fd oldfd:fd newfd:fd
364 > io dup3 oldfd:fd
365 < io dup3 res:fd oldfd:fd newfd:fd flags:open
366 > io dup oldfd:fd
367 < io dup res:fd oldfd:fd
368 > other bpf cmd:bpf
369 < other bpf fd:fd cmd:bpf
370 > memory mlock2
371 < memory mlock2 res:errno addr:hex len:uint flags:hex
372 > system fsconfig
373 < system fsconfig res:errno fd:fd cmd:uint key:text value_bytebuf:bytes value_charbuf:text aux:int
374 > other epoll_create size:int
375 < other epoll_create res:fd size:int
376 > other epoll_create1 flags:hex
377 < other epoll_create1 res:fd flags:hex
378 > file chown
379 < file chown res:errno path:path uid:uid gid:gid
380 > file lchown
381 < file lchown res:errno path:path uid:uid gid:gid
382 > file fchown
383 < file fchown res:errno fd:fd uid:uid gid:gid
384 > file fchownat
385 < file fchownat res:errno dirfd:fd pathname:relpath:dirfd uid:uid gid:gid flags:at
386 > file umount
387 < file umount res:errno name:path flags:hex
388 > net accept4 flags:int
389 < net accept4 fd:fd tuple:tuple queuepct:uint queuelen:uint queuemax:uint flags:int
390 > file umount2 flags:hex
391 < file umount2 res:errno name:path flags:hex
392 > ipc pipe2
393 < ipc pipe2 res:errno fd1:fd fd2:fd ino:uint flags:open
394 > ipc inotify_init1
395 < ipc inotify_init1 res:fd flags:open
396 > ipc eventfd2 initval:uint
397 < ipc eventfd2 res:fd flags:open initval:uint
398 > signal signalfd4 fd:fd mask:hex
399 < signal signalfd4 res:fd flags:open fd:fd mask:hex
400 > process prctl
401 < process prctl res:errno option:uint arg2_str:text arg2_int:int
402 - internal asyncevent plugin_id:uint name:text data:bytes
404 > memory memfd_create
405 < memory memfd_create fd:fd name:text flags:memfd
406 > process pidfd_getfd
407 < process pidfd_getfd fd:fd pid_fd:fd target_fd:fd flags:uint
408 > process pidfd_open
409 < process pidfd_open fd:fd pid:pid flags:open
410 > other init_module
411 < other init_module res:errno img:bytes length:uint uargs:text
412 > other finit_module
413 < other finit_module res:errno fd:fd uargs:text flags:uint
414 > other mknod
415 < other mknod res:errno path:path mode:mode dev:uint
416 > other mknodat
417 < other mknodat res:errno dirfd:fd path:relpath:dirfd mode:mode dev:uint
418 > file newfstatat
419 < file newfstatat res:errno dirfd:fd path:relpath:dirfd flags:at
420 > ipc process_vm_readv
421 < ipc process_vm_readv res:errno pid:pid data:bytes
422 > ipc process_vm_writev
423 < ipc process_vm_writev res:errno pid:pid data:bytes
424 > other delete_module
425 < other delete_module res:errno name:text flags:open
426 > user setreuid
427 < user setreuid res:errno ruid:uid euid:uid
428 > user setregid
429 < user setregid res:errno rgid:gid egid:gid
"""

ENTER, EXIT, ALONE, HIDDEN = ">", "<", "!", "-"


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """Name and type of one parameter; a relative path names the parameter of its directory."""

    name: str
    type: str
    directory: str = ""


@dataclass(frozen=True, slots=True)
class EventSpec:
    """One number of an event."""

    code: int
    direction: str
    category: str
    name: str
    parameters: tuple[ParameterSpec, ...]
    descriptors: tuple[str, ...]
    """Names of the parameters that are descriptors."""


@cache
def event_table() -> dict[int, EventSpec]:
    """Events by number."""
    table = {}
    # A line that begins with blanks continues the row before it.
    for line in _ROWS.replace("\n  ", " ").strip().splitlines():
        code, direction, category, name, *words = line.split()
        specs = tuple(ParameterSpec(*word.split(":")) for word in words)
        descriptors = tuple(item.name for item in specs if item.type == "fd")
        table[int(code)] = EventSpec(int(code), direction, category, name, specs, descriptors)
    return table


@cache
def current_events() -> dict[str, EventSpec]:
    """Today's exit, or event without a call, of each name: the one with the most parameters."""
    found: dict[str, EventSpec] = {}
    for spec in event_table().values():
        if spec.direction in (EXIT, ALONE):
            known = found.get(spec.name)
            if known is None or len(spec.parameters) >= len(known.parameters):
                found[spec.name] = spec
    return found
