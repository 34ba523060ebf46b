/* Records, settings and maps that the program shares with its reader: the mirror of agent/probe/layout.py. */

#include <linux/types.h>

#define SLOT_PATH1 0
#define SLOT_PATH2 1
#define SLOT_DIR1 2
#define SLOT_DIR2 3
#define SLOT_FD_PATH 4
#define SLOT_FD 5
#define SLOT_SOCKET 6
#define SLOT_ADDRESS 7
#define SLOT_DATA 8
#define SLOT_CWD 9
#define SLOT_EXE 10
#define SLOT_ARGS 11
#define SLOT_ENV 12
#define SLOT_PROCESS 13
#define SLOT_CGROUP 14
#define SLOT_EXTRA 15

#define KIND_CALL 0
#define KIND_EXEC 1
#define KIND_FORK 2
#define KIND_EXIT 3

#define AT_ENTER 1     /* the first path or the address is copied before the kernel looks at it */
#define LENGTH_POINTER 2 /* the address length is behind a pointer */
#define MESSAGE 4      /* the argument is a struct user_msghdr */
#define OPEN_HOW 8
#define CREDENTIALS 32 /* the call changes who the process is: users, groups and capabilities after it */

#define NO_BYTES 0x80  /* in `measured`: the result is no number of bytes */
#define BYTES_CLASSES 5 /* of the classes of measured calls, those that move data */
#define ENTERED_SLOTS 65536
#define ENTERED_BITS 49 /* nanoseconds: 6.5 days */
#define DURATION_BUCKETS 28
#define DURATION_NS_LIMIT (1ULL << 40)

#define CALL_LIMIT 512
#define COUNTER_KINDS (CALL_LIMIT + 8)
#define COUNT_NO_STASH (CALL_LIMIT + 4)
#define COUNT_COMPAT (CALL_LIMIT + 5)
#define COUNT_NO_COST (CALL_LIMIT + 6)

#define RECORD_MASK 0x3fff
#define STRING_LIMIT 4096
#define NAME_LIMIT 256
#define DEPTH_LIMIT 40
#define STASH_BYTES 512
#define SNAP_BYTES 80
#define ADDRESS_BYTES 128
#define TS_COMPAT_BIT 2
#define AT_FDCWD_VALUE (-100)
#define OVERLAY_MAGIC 0x794c7630
#define SOCKET_MAGIC 0x534f434b
#define NO_WAKEUP 1
#define QUERIED_BIT 0x80000000 /* the kernel keeps a mark in the top bit of the nanoseconds */

struct header {
    u64 time_ns;
    u64 start_ns;
    s64 result;
    u64 args[6];
    u32 pid, tid, ppid, uid, gid;
    u16 kind, nr, cpu, faults;
    u32 size;
    char comm[16];
    u64 parent_start_ns;
};

struct process {
    u64 cap_inheritable, cap_permitted, cap_effective;
    u64 exe_inode;
    s64 exe_ctime_ns, exe_mtime_ns;
    u64 major_faults, minor_faults, size_pages, rss_pages, swap_pages, fd_limit;
    u64 namespace_start_ns;
    u32 uid, euid, gid, egid, loginuid, session_id, tty, pgid, sid;
    u32 vpid, vtid, vpgid, vsid;
    u32 exe_mode, exe_uid, exe_gid, exe_magic, exe_links, exe_upper, exe_pseudo;
};

struct descriptor {
    u64 inode;
    u32 device, mode, magic, links, flags, upper, pseudo, open_mode;
};

struct tuple {
    u16 family, type, protocol, state, local_port, remote_port;
    u32 queue, queue_limit;
    u32 unused;
    u8 local[16], remote[16];
};

struct action {
    u8 enabled, path[2], dir[2], fd, address, length, data, flags, measured, unused[5];
};

struct cost_key {
    u64 start_ns;
    u32 pid, class;
};

struct cost {
    u64 calls, errors, bytes, timed, duration_ns;
    u32 buckets[DURATION_BUCKETS];
};

/* The registers of a call as they lie in pt_regs, r10 first. */
struct registers {
    u64 r10, r9, r8, ax, cx, dx, si, di, orig_ax;
};

struct scratch {
    struct header header;
    char data[RECORD_MASK + 1 + STRING_LIMIT + 64];
    u32 used;
    u32 field;
    u32 pseudo;
    u32 relative[2];
    u64 root_mount, root_dentry;
    u64 span[SPAN_LIMIT / 8];
};

struct stash {
    u32 nr;
    s32 length;
    char text[STASH_BYTES];
};

BPF_TABLE("percpu_array", u32, struct scratch, scratches, 1);
BPF_TABLE("percpu_array", u32, struct stash, stash_scratch, 1);
BPF_TABLE("hash", u64, struct stash, stashes, STASH_ENTRIES);
BPF_F_TABLE("array", u32, struct action, actions, CALL_LIMIT, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, u64, settings, 8, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, u64, sent, CPU_COUNT * COUNTER_KINDS, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, u64, lost, CPU_COUNT * COUNTER_KINDS, BPF_F_MMAPABLE);
BPF_RINGBUF_OUTPUT(ring, RING_PAGES);
BPF_TABLE("array", u32, u64, entered, ENTERED_SLOTS);
BPF_TABLE("array", u32, struct cost, no_cost, 1);
BPF_TABLE("hash", struct cost_key, struct cost, costs_a, COST_ENTRIES);
BPF_TABLE("hash", struct cost_key, struct cost, costs_b, COST_ENTRIES);
BPF_F_TABLE("array", u32, struct cost, costs_left_over, 16, BPF_F_MMAPABLE); /* by class, when the map is full */
