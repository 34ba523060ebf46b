/* What runs in the kernel: three families of tracepoints, one ring buffer.
 *
 * Kernel pointers are plain u64 and are only read through GET with offsets from BTF (OFF_*, -1 when the running
 * kernel lacks the member); the headers this file is compiled with may belong to another kernel version.
 * A record is a `struct header` and then fields: u32 slot, u32 length, bytes, padding to 8.
 * Offsets into the scratch are kept in the scratch itself: the verifier then forgets their values at each step,
 * and states of a loop become equal instead of multiplying.
 */
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
    u32 device, mode, magic, links, flags, upper, pseudo, unused;
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

#define GET(target, base, offset) \
    do { \
        if ((offset) >= 0) \
            bpf_probe_read_kernel(&(target), sizeof(target), (void *)((base) + (offset))); \
    } while (0)

static __always_inline u64 pointer(u64 base, long offset) {
    u64 value = 0;
    GET(value, base, offset);
    return value;
}

static __always_inline u32 word(u64 base, long offset) {
    u32 value = 0;
    GET(value, base, offset);
    return value;
}

/* The running task as a pointer whose type the verifier knows: its members and what they point to are plain loads,
 * a tenth of the cost of a probe read. Where a kernel refuses that, DIRECT is 0 and they are probe reads.
 */
static u64 (*typed_task)(void) = (void *)158;

static __always_inline u64 current_task(void) {
    return DIRECT ? typed_task() : bpf_get_current_task();
}

static __always_inline u64 near(int direct, u64 base, long offset) {
    return direct ? *(volatile u64 *)(base + offset) : pointer(base, offset);
}

static __always_inline u32 near_word(int direct, u64 base, long offset) {
    return direct ? *(volatile u32 *)(base + offset) : word(base, offset);
}

/* All members of a struct that are needed, in one read; PART takes one out of it. */
#define READ_SPAN(s, name, base) \
    bpf_probe_read_kernel((s)->span, SPAN_##name##_size, (void *)((base) + SPAN_##name##_from))
#define PART(s, type, name, offset) \
    ((offset) >= 0 ? *(type *)((char *)(s)->span + ((offset) >= 0 ? (offset) - SPAN_##name##_from : 0)) : 0)

static __always_inline void count_lost(u32 kind) {
    u32 index = bpf_get_smp_processor_id() * COUNTER_KINDS + kind;
    u64 *counter = lost.lookup(&index);
    if (counter)
        *counter += 1;
}

static __always_inline void submit(struct scratch *s, u32 kind) {
    u32 size = s->used;
    asm volatile("" : "+r"(size));
    size &= 2 * RECORD_MASK + 1;
    if (size > RECORD_MASK + STRING_LIMIT)
        return;
    s->header.size = sizeof(struct header) + size;
    s->header.cpu = bpf_get_smp_processor_id();
    if (ring.ringbuf_output(&s->header, sizeof(struct header) + size, NO_WAKEUP)) {
        count_lost(kind);
        return;
    }
    u32 index = bpf_get_smp_processor_id() * COUNTER_KINDS + kind;
    u64 *counter = sent.lookup(&index);
    if (counter)
        *counter += 1;
}

/* Begin a field; 0 when the record is full. `s->field` remembers where its header lies. */
static __always_inline int begin(struct scratch *s) {
    u32 at = s->used;
    if (at > RECORD_MASK - 8)
        return 0;
    s->field = at;
    s->used = at + 8;
    return 1;
}

static __always_inline void finish(struct scratch *s, u32 slot) {
    u32 at = s->field, used = s->used;
    asm volatile("" : "+r"(at));
    at &= RECORD_MASK;
    *(u32 *)(s->data + at) = slot;
    *(u32 *)(s->data + at + 4) = used - at - 8;
    s->used = (used + 7) & ~7;
}

static __always_inline void fault(struct scratch *s, u32 slot) {
    s->header.faults |= 1 << slot;
    s->used = s->field;
}

static __always_inline void put_user_string(struct scratch *s, u32 slot, u64 address) {
    if (!begin(s))
        return;
    u32 at = s->used;
    asm volatile("" : "+r"(at));
    at &= RECORD_MASK;
    long n = bpf_probe_read_user_str(s->data + at, STRING_LIMIT, (void *)address);
    if (n <= 0) {
        fault(s, slot);
        return;
    }
    s->used = at + n - 1;
    finish(s, slot);
}

static __always_inline void put_user_bytes(struct scratch *s, u32 slot, u64 address, u64 length, u32 limit) {
    if (!address || !begin(s))
        return;
    u32 at = s->used;
    asm volatile("" : "+r"(at));
    at &= RECORD_MASK;
    u32 n = length > limit ? limit : length;
    asm volatile("" : "+r"(n));
    n &= 2 * STRING_LIMIT - 1;
    if (n > STRING_LIMIT)
        n = STRING_LIMIT;
    if (n && bpf_probe_read_user(s->data + at, n, (void *)address)) {
        fault(s, slot);
        return;
    }
    s->used = at + n;
    finish(s, slot);
}

static __always_inline void put_stash(struct scratch *s, u32 slot, struct stash *stash) {
    if (!begin(s))
        return;
    u32 at = s->used;
    asm volatile("" : "+r"(at));
    at &= RECORD_MASK;
    u32 n = stash->length;
    asm volatile("" : "+r"(n));
    n &= 2 * STASH_BYTES - 1;
    if (n > STASH_BYTES)
        n = STASH_BYTES;
    if (n)
        bpf_probe_read_kernel(s->data + at, n, stash->text);
    s->used = at + n;
    finish(s, slot);
}

/* Names from the leaf upwards, each with its NUL; stops at the root of the process. */
static __always_inline void put_path(struct scratch *s, u32 slot, u64 mount, u64 dentry) {
    u64 root_mount = s->root_mount, root_dentry = s->root_dentry;
    s->pseudo = 0;
    if (!dentry || !begin(s))
        return;
    u64 top = pointer(mount, OFF_vfsmount_mnt_root);
    for (int i = 0; i < DEPTH_LIMIT; i++) {
        if (dentry == root_dentry && mount == root_mount)
            break;
        if (dentry == top) {
            u64 whole = mount - OFF_mount_mnt;
            u64 up = pointer(whole, OFF_mount_mnt_parent);
            if (up == whole)
                break;
            dentry = pointer(whole, OFF_mount_mnt_mountpoint);
            mount = up + OFF_mount_mnt;
            top = pointer(mount, OFF_vfsmount_mnt_root);
            continue;
        }
        u64 members[SPAN_dentry_size / 8] = {};
        bpf_probe_read_kernel(members, sizeof(members), (void *)(dentry + SPAN_dentry_from));
        u64 parent = members[(OFF_dentry_d_parent - SPAN_dentry_from) / 8];
        u32 at = s->used;
        asm volatile("" : "+r"(at));
        if (at > RECORD_MASK - NAME_LIMIT)
            break;
        u64 name = members[(OFF_dentry_d_name_name - SPAN_dentry_from) / 8];
        long n = bpf_probe_read_kernel_str(s->data + at, NAME_LIMIT, (void *)name);
        if (n <= 0)
            break;
        s->used = at + n;
        if (dentry == parent) {
            s->pseudo = 1;
            break;
        }
        dentry = parent;
    }
    finish(s, slot);
}

static __always_inline void put_cgroup(struct scratch *s, u64 task) {
    u64 set = pointer(task, OFF_task_struct_cgroups);
    u64 group = 0;
    if (OFF_css_set_subsys >= 0)
        group = pointer(pointer(set, OFF_css_set_subsys), OFF_cgroup_subsys_state_cgroup);
    if (!group)
        group = pointer(set, OFF_css_set_dfl_cgrp);
    u64 node = pointer(group, OFF_cgroup_kn);
    if (!node || !begin(s))
        return;
    for (int i = 0; i < DEPTH_LIMIT / 2; i++) {
        u64 parent = pointer(node, OFF_kernfs_node_parent);
        if (!parent)
            break;
        u32 at = s->used;
        asm volatile("" : "+r"(at));
        if (at > RECORD_MASK - NAME_LIMIT)
            break;
        u64 name = pointer(node, OFF_kernfs_node_name);
        long n = bpf_probe_read_kernel_str(s->data + at, NAME_LIMIT, (void *)name);
        if (n <= 0)
            break;
        s->used = at + n;
        node = parent;
    }
    finish(s, SLOT_CGROUP);
}

static __always_inline void remember_root(struct scratch *s, u64 task) {
    u64 fs = near(DIRECT, task, OFF_task_struct_fs);
    s->root_mount = near(DIRECT, fs, OFF_fs_struct_root + OFF_path_mnt);
    s->root_dentry = near(DIRECT, fs, OFF_fs_struct_root + OFF_path_dentry);
}

static __always_inline void put_cwd(struct scratch *s, u64 task, u32 slot) {
    u64 fs = near(DIRECT, task, OFF_task_struct_fs);
    put_path(s, slot, near(DIRECT, fs, OFF_fs_struct_pwd + OFF_path_mnt),
             near(DIRECT, fs, OFF_fs_struct_pwd + OFF_path_dentry));
}

static __always_inline u64 file_of(u64 task, s64 fd) {
    u64 files = near(DIRECT, task, OFF_task_struct_files);
    u64 table = near(DIRECT, files, OFF_files_struct_fdt);
    if (fd < 0 || fd >= near_word(DIRECT, table, OFF_fdtable_max_fds))
        return 0;
    return pointer(near(DIRECT, table, OFF_fdtable_fd) + fd * 8, 0);
}

static __always_inline u32 upper_layer(u64 inode, u32 magic) {
    if (magic != OVERLAY_MAGIC)
        return 0;
    return pointer(inode, OFF_ovl_upper) ? 1 : 2;
}

static __always_inline void put_descriptor(struct scratch *s, u64 file, u32 pseudo, u32 *magic) {
    struct descriptor d = {};
    READ_SPAN(s, file, file);
    u64 inode = PART(s, u64, file, OFF_file_f_inode);
    d.flags = PART(s, u32, file, OFF_file_f_flags);
    READ_SPAN(s, inode, inode);
    u64 super = PART(s, u64, inode, OFF_inode_i_sb);
    d.inode = PART(s, u64, inode, OFF_inode_i_ino);
    d.mode = PART(s, u16, inode, OFF_inode_i_mode);
    d.links = PART(s, u32, inode, OFF_inode_i_nlink);
    READ_SPAN(s, super_block, super);
    d.device = PART(s, u32, super_block, OFF_super_block_s_dev);
    d.magic = PART(s, u32, super_block, OFF_super_block_s_magic);
    d.upper = upper_layer(inode, d.magic);
    d.pseudo = pseudo;
    *magic = d.magic;
    if (!begin(s))
        return;
    u32 at = s->used;
    asm volatile("" : "+r"(at));
    at &= RECORD_MASK;
    bpf_probe_read_kernel(s->data + at, sizeof(d), &d);
    s->used = at + sizeof(d);
    finish(s, SLOT_FD);
}

static __always_inline void put_socket(struct scratch *s, u64 file) {
    struct tuple t = {};
    u64 socket = pointer(file, OFF_file_private_data);
    u64 sk = pointer(socket, OFF_socket_sk);
    GET(t.type, socket, OFF_socket_type);
    GET(t.family, sk, OFF_sock_common_skc_family);
    GET(*(u8 *)&t.state, sk, OFF_sock_common_skc_state);
    GET(t.protocol, sk, OFF_sock_sk_protocol);
    if (t.family == 2) {
        GET(*(u32 *)t.local, sk, OFF_sock_common_skc_rcv_saddr);
        GET(*(u32 *)t.remote, sk, OFF_sock_common_skc_daddr);
    } else if (t.family == 10) {
        GET(t.local, sk, OFF_sock_common_skc_v6_rcv_saddr);
        GET(t.remote, sk, OFF_sock_common_skc_v6_daddr);
    }
    if (t.family == 2 || t.family == 10) {
        GET(t.local_port, sk, OFF_sock_common_skc_num);
        GET(t.remote_port, sk, OFF_sock_common_skc_dport);
        t.remote_port = __builtin_bswap16(t.remote_port);
    }
    t.queue = word(sk, OFF_sock_sk_ack_backlog);
    t.queue_limit = word(sk, OFF_sock_sk_max_ack_backlog);
    if (!begin(s))
        return;
    u32 at = s->used;
    asm volatile("" : "+r"(at));
    at &= RECORD_MASK;
    bpf_probe_read_kernel(s->data + at, sizeof(t), &t);
    s->used = at + sizeof(t);
    finish(s, SLOT_SOCKET);
}

/* `direct`: the task is the running one, as `current_task` gives it. */
static __always_inline struct scratch *new_record(int direct, u64 task, u32 kind, u32 nr, s64 result) {
    u32 zero = 0;
    struct scratch *s = scratches.lookup(&zero);
    if (!s)
        return 0;
    u64 cred = near(direct, task, OFF_task_struct_cred);
    u64 leader = near(direct, task, OFF_task_struct_group_leader);
    u64 parent = near(direct, task, OFF_task_struct_real_parent);
    u64 parent_leader = near(direct, parent, OFF_task_struct_group_leader);
    struct header *h = &s->header;
    h->time_ns = bpf_ktime_get_boot_ns();
    h->start_ns = near(direct, leader, OFF_task_struct_start_boottime);
    h->parent_start_ns = near(direct, parent_leader, OFF_task_struct_start_boottime);
    h->result = result;
    h->pid = near_word(direct, task, OFF_task_struct_tgid);
    h->tid = near_word(direct, task, OFF_task_struct_pid);
    h->ppid = near_word(direct, parent, OFF_task_struct_tgid);
    h->uid = near_word(direct, cred, OFF_cred_euid);
    h->gid = near_word(direct, cred, OFF_cred_egid);
    h->kind = kind;
    h->nr = nr;
    h->faults = 0;
    bpf_probe_read_kernel(h->comm, sizeof(h->comm), (void *)(task + OFF_task_struct_comm));
    s->used = 0;
    return s;
}

/* Number and start time of a pid in the innermost namespace it lives in. */
static __always_inline u32 inner_number(u64 pid, u64 *namespace) {
    u32 level = word(pid, OFF_pid_level) & 31;
    u64 entry = pid + OFF_pid_numbers + level * SIZE_upid;
    if (namespace)
        *namespace = pointer(entry, OFF_upid_ns);
    return word(entry, OFF_upid_nr);
}

static __always_inline void fill_credentials(struct process *p, u64 task) {
    u64 cred = pointer(task, OFF_task_struct_cred);
    p->uid = word(cred, OFF_cred_uid);
    p->euid = word(cred, OFF_cred_euid);
    p->gid = word(cred, OFF_cred_gid);
    p->egid = word(cred, OFF_cred_egid);
    p->cap_inheritable = pointer(cred, OFF_cred_cap_inheritable);
    p->cap_permitted = pointer(cred, OFF_cred_cap_permitted);
    p->cap_effective = pointer(cred, OFF_cred_cap_effective);
    p->loginuid = OFF_task_struct_loginuid >= 0 ? word(task, OFF_task_struct_loginuid) : ~0U;
    p->session_id = OFF_task_struct_sessionid >= 0 ? word(task, OFF_task_struct_sessionid) : ~0U;
}

static __always_inline void fill_numbers(struct process *p, u64 task) {
    u64 signal = pointer(task, OFF_task_struct_signal), namespace = 0;
    u64 group = pointer(signal, OFF_signal_struct_pids + 16), session = pointer(signal, OFF_signal_struct_pids + 24);
    u64 leader = pointer(task, OFF_task_struct_group_leader);
    p->vtid = inner_number(pointer(task, OFF_task_struct_thread_pid), 0);
    p->vpid = inner_number(pointer(leader, OFF_task_struct_thread_pid), &namespace);
    p->vpgid = inner_number(group, 0);
    p->vsid = inner_number(session, 0);
    p->pgid = word(group, OFF_pid_numbers + OFF_upid_nr);
    p->sid = word(session, OFF_pid_numbers + OFF_upid_nr);
    p->namespace_start_ns =
        pointer(pointer(namespace, OFF_pid_namespace_child_reaper), OFF_task_struct_start_boottime);
    p->fd_limit = pointer(signal, OFF_signal_struct_rlim + 7 * 16);
    u64 tty = pointer(signal, OFF_signal_struct_tty);
    if (tty) {
        u64 driver = pointer(tty, OFF_tty_struct_driver);
        u32 minor = word(driver, OFF_tty_driver_minor_start) + word(tty, OFF_tty_struct_index);
        p->tty = word(driver, OFF_tty_driver_major) << 8 | (minor & 0xff) | (minor & 0xfff00) << 12;
    }
}

static __always_inline void fill_memory(struct process *p, u64 task, u64 mm, u64 file) {
    u64 inode = pointer(file, OFF_file_f_inode), super = pointer(inode, OFF_inode_i_sb);
    p->major_faults = pointer(task, OFF_task_struct_maj_flt);
    p->minor_faults = pointer(task, OFF_task_struct_min_flt);
    p->size_pages = pointer(mm, OFF_mm_struct_total_vm);
    if (OFF_mm_struct_rss_stat >= 0) {
        p->rss_pages = pointer(mm, OFF_mm_struct_rss_stat) + pointer(mm, OFF_mm_struct_rss_stat + RSS_STRIDE) +
                       pointer(mm, OFF_mm_struct_rss_stat + 3 * RSS_STRIDE);
        p->swap_pages = pointer(mm, OFF_mm_struct_rss_stat + 2 * RSS_STRIDE);
    }
    p->exe_inode = pointer(inode, OFF_inode_i_ino);
    p->exe_ctime_ns = pointer(inode, OFF_inode_ctime_sec) * 1000000000ULL + word(inode, OFF_inode_ctime_nsec) % QUERIED_BIT;
    p->exe_mtime_ns = pointer(inode, OFF_inode_mtime_sec) * 1000000000ULL + word(inode, OFF_inode_mtime_nsec) % QUERIED_BIT;
    GET(*(u16 *)&p->exe_mode, inode, OFF_inode_i_mode);
    p->exe_uid = word(inode, OFF_inode_i_uid);
    p->exe_gid = word(inode, OFF_inode_i_gid);
    p->exe_magic = word(super, OFF_super_block_s_magic);
    p->exe_links = word(inode, OFF_inode_i_nlink);
    p->exe_upper = upper_layer(inode, p->exe_magic);
}

static __always_inline void put_process(struct scratch *s, u64 task, u64 mm, u64 file, u32 pseudo) {
    struct process p = {};
    fill_credentials(&p, task);
    fill_numbers(&p, task);
    if (mm)
        fill_memory(&p, task, mm, file);
    p.exe_pseudo = pseudo;
    if (!begin(s))
        return;
    u32 at = s->used;
    asm volatile("" : "+r"(at));
    at &= RECORD_MASK;
    bpf_probe_read_kernel(s->data + at, sizeof(p), &p);
    s->used = at + sizeof(p);
    finish(s, SLOT_PROCESS);
}

static __always_inline int is_own(u32 pid) {
    u32 zero = 0;
    u64 *own = settings.lookup(&zero);
    return !own || pid == *own;
}

static __always_inline u64 argument(struct scratch *s, u32 number) {
    switch (number) {
    case 1: return s->header.args[0];
    case 2: return s->header.args[1];
    case 3: return s->header.args[2];
    case 4: return s->header.args[3];
    case 5: return s->header.args[4];
    case 6: return s->header.args[5];
    case 7: return s->header.result;
    }
    return 0;
}

static __always_inline u64 register_of(u64 registers, u32 number) {
    switch (number) {
    case 1: return pointer(registers, OFF_pt_regs_arg1);
    case 2: return pointer(registers, OFF_pt_regs_arg2);
    case 3: return pointer(registers, OFF_pt_regs_arg3);
    case 4: return pointer(registers, OFF_pt_regs_arg4);
    case 5: return pointer(registers, OFF_pt_regs_arg5);
    case 6: return pointer(registers, OFF_pt_regs_arg6);
    }
    return 0;
}

/* When a thread began a measured call: one word, so that no reader sees half of it. Two threads whose numbers
 * have the same last 16 bits take each other's place; the tag tells, and that call has no duration.
 */
static __always_inline u64 entry_tag(u32 tid, u32 nr) {
    return (u64)((tid >> 16 & 0x3f) << 9 | nr & (CALL_LIMIT - 1)) << ENTERED_BITS;
}

static __always_inline void remember_entry(u32 tid, u32 nr) {
    u32 slot = tid & (ENTERED_SLOTS - 1);
    u64 *entry = entered.lookup(&slot);
    if (entry)
        *entry = entry_tag(tid, nr) | bpf_ktime_get_boot_ns() & (1ULL << ENTERED_BITS) - 1;
}

/* Number of the power of two of seconds that a duration lies below, 0 for 2^-20 s. */
static __always_inline u32 bucket_of(u64 duration_ns) {
    u64 units = duration_ns * 4503600 >> 32;
    u32 bucket = 0;
    if (units >> 16) { bucket += 16; units >>= 16; }
    if (units >> 8) { bucket += 8; units >>= 8; }
    if (units >> 4) { bucket += 4; units >>= 4; }
    if (units >> 2) { bucket += 2; units >>= 2; }
    bucket += units > 1 ? 2 : units;
    return bucket < DURATION_BUCKETS ? bucket : DURATION_BUCKETS - 1;
}

static __always_inline struct cost *cost_of(struct cost_key *key) {
    u32 zero = 0, one = 1;
    u64 *second = settings.lookup(&one);
    struct cost *nothing = no_cost.lookup(&zero), *cost;
    if (!second || !nothing)
        return 0;
    if (*second) {
        if ((cost = costs_b.lookup(key)))
            return cost;
        costs_b.update(key, nothing);
        return costs_b.lookup(key);
    }
    if ((cost = costs_a.lookup(key)))
        return cost;
    costs_a.update(key, nothing);
    return costs_a.lookup(key);
}

/* -EAGAIN, -EINPROGRESS and a call that will be restarted are no errors. */
static __always_inline int is_error(s64 result) {
    return result < 0 && result >= -4095 && result != -11 && result != -115 && (result > -512 || result < -516);
}

static __always_inline void measure(u64 task, u64 id, u32 nr, u32 measured, s64 result) {
    u32 slot = id & (ENTERED_SLOTS - 1), class = (measured & ~NO_BYTES) - 1;
    u64 leader = near(DIRECT, task, OFF_task_struct_group_leader);
    struct cost_key key = {near(DIRECT, leader, OFF_task_struct_start_boottime), id >> 32, class};
    struct cost *cost = cost_of(&key);
    if (!cost) {
        count_lost(COUNT_NO_COST);
        if (!(cost = costs_left_over.lookup(&class)))
            return;
    }
    __sync_fetch_and_add(&cost->calls, 1);
    if (is_error(result))
        __sync_fetch_and_add(&cost->errors, 1);
    else if (result > 0 && class < BYTES_CLASSES && !(measured & NO_BYTES))
        __sync_fetch_and_add(&cost->bytes, result);
    u64 *entry = entered.lookup(&slot);
    if (!entry)
        return;
    u64 then = *entry, mask = (1ULL << ENTERED_BITS) - 1;
    if (!then || (then & ~mask) != entry_tag(id, nr))
        return;
    *entry = 0;
    u64 duration = bpf_ktime_get_boot_ns() - then & mask;
    if (duration > DURATION_NS_LIMIT)
        duration = DURATION_NS_LIMIT;
    __sync_fetch_and_add(&cost->timed, 1);
    __sync_fetch_and_add(&cost->duration_ns, duration);
    u32 bucket = bucket_of(duration);
    asm volatile("" : "+r"(bucket));
    if (bucket < DURATION_BUCKETS)
        __sync_fetch_and_add(&cost->buckets[bucket], 1);
}

int on_sys_enter(struct bpf_raw_tracepoint_args *ctx) {
    u32 nr = ctx->args[1], zero = 0;
    struct action *action = actions.lookup(&nr);
    if (!action)
        return 0;
    u32 guarded = action->enabled && action->flags & AT_ENTER, measured = action->measured;
    if (!guarded && !measured)
        return 0;
    u64 task = current_task(), id = bpf_get_current_pid_tgid(), registers = ctx->args[0];
    if (is_own(id >> 32) || near_word(DIRECT, task, OFF_task_struct_status) & TS_COMPAT_BIT)
        return 0;
    if (measured)
        remember_entry(id, nr);
    if (!guarded)
        return 0;
    struct stash *stash = stash_scratch.lookup(&zero);
    if (!stash)
        return 0;
    stash->nr = nr;
    long n;
    if (action->path[0]) {
        n = bpf_probe_read_user_str(stash->text, STASH_BYTES, (void *)register_of(registers, action->path[0]));
        if (n <= 0 || n == STASH_BYTES)
            return 0; /* absent page or too long: read again at exit */
        n -= 1;
    } else {
        u32 size = register_of(registers, action->length);
        if (size > ADDRESS_BYTES)
            size = ADDRESS_BYTES;
        asm volatile("" : "+r"(size));
        size &= 2 * ADDRESS_BYTES - 1;
        if (bpf_probe_read_user(stash->text, size, (void *)register_of(registers, action->address)))
            return 0;
        n = size;
    }
    stash->length = n;
    if (stashes.update(&id, stash))
        count_lost(COUNT_NO_STASH);
    return 0;
}

static __always_inline void put_paths(struct scratch *s, struct action *action, struct stash *stash) {
    s->relative[0] = s->relative[1] = 0;
    for (int i = 0; i < 2; i++) {
        if (!action->path[i])
            continue;
        char first = 0;
        u64 address = argument(s, action->path[i]);
        if (i == 0 && stash) {
            put_stash(s, SLOT_PATH1, stash);
            first = stash->text[0];
        } else {
            put_user_string(s, SLOT_PATH1 + i, address);
            bpf_probe_read_user(&first, 1, (void *)address);
        }
        s->relative[i] = first != '/';
    }
}

static __always_inline void put_directories(struct scratch *s, struct action *action, u64 task) {
    u32 need_cwd = 0;
    for (int i = 0; i < 2; i++) {
        if (!s->relative[i])
            continue;
        int fd = AT_FDCWD_VALUE;
        if (action->dir[i] == 8)
            continue; /* a name that is no path */
        if (action->dir[i])
            fd = argument(s, action->dir[i]);
        if (fd == AT_FDCWD_VALUE) {
            need_cwd = 1;
            continue;
        }
        u64 file = file_of(task, fd);
        if (file)
            put_path(s, SLOT_DIR1 + i, pointer(file, OFF_file_f_path + OFF_path_mnt),
                     pointer(file, OFF_file_f_path + OFF_path_dentry));
    }
    if (need_cwd)
        put_cwd(s, task, SLOT_CWD);
}

static __always_inline void put_fd(struct scratch *s, struct action *action, u64 task) {
    if (!action->fd)
        return;
    u32 magic = 0;
    u64 file = file_of(task, (s32)argument(s, action->fd));
    if (!file)
        return;
    put_path(s, SLOT_FD_PATH, pointer(file, OFF_file_f_path + OFF_path_mnt),
             pointer(file, OFF_file_f_path + OFF_path_dentry));
    put_descriptor(s, file, s->pseudo, &magic);
    if (magic == SOCKET_MAGIC)
        put_socket(s, file);
}

static __always_inline void put_buffers(struct scratch *s, struct action *action, struct stash *stash) {
    u64 address = 0, length = 0, data = 0;
    s64 result = s->header.result;
    if (action->flags & MESSAGE) {
        u64 message = s->header.args[1], vector = 0, size = 0;
        u32 name_length = 0;
        bpf_probe_read_user(&address, 8, (void *)message);
        bpf_probe_read_user(&name_length, 4, (void *)(message + 8));
        bpf_probe_read_user(&vector, 8, (void *)(message + 16));
        bpf_probe_read_user(&data, 8, (void *)vector);
        length = name_length;
    } else {
        address = argument(s, action->address);
        length = argument(s, action->length);
        data = argument(s, action->data);
        if (action->flags & LENGTH_POINTER) {
            u32 size = 0;
            bpf_probe_read_user(&size, 4, (void *)length);
            length = size;
        }
    }
    if (stash && !action->path[0])
        put_stash(s, SLOT_ADDRESS, stash);
    else if (address)
        put_user_bytes(s, SLOT_ADDRESS, address, length, ADDRESS_BYTES);
    if (data && result > 0)
        put_user_bytes(s, SLOT_DATA, data, result, SNAP_BYTES);
    if (action->flags & OPEN_HOW)
        put_user_bytes(s, SLOT_EXTRA, s->header.args[2], 24, 24);
}

int on_sys_exit(struct bpf_raw_tracepoint_args *ctx) {
    struct registers r;
    s64 result = ctx->args[1];
    bpf_probe_read_kernel(&r, sizeof(r), (void *)(ctx->args[0] + OFF_pt_regs_arg4));
    u32 nr = r.orig_ax;
    struct action *action = actions.lookup(&nr);
    if (!action)
        return 0;
    u32 measured = action->measured;
    if (!action->enabled && !measured)
        return 0;
    u64 task = current_task(), id = bpf_get_current_pid_tgid();
    if (is_own(id >> 32))
        return 0;
    if (near_word(DIRECT, task, OFF_task_struct_status) & TS_COMPAT_BIT) {
        if (action->enabled)
            count_lost(COUNT_COMPAT);
        return 0;
    }
    if (measured)
        measure(task, id, nr, measured, result);
    if (!action->enabled)
        return 0;
    if (result == 0 && (nr == NR_execve || nr == NR_execveat))
        return 0; /* told by sched_process_exec, when the new arguments are in place */
    struct scratch *s = new_record(DIRECT, task, KIND_CALL, nr, result);
    if (!s)
        return 0;
    s->header.args[0] = r.di;
    s->header.args[1] = r.si;
    s->header.args[2] = r.dx;
    s->header.args[3] = r.r10;
    s->header.args[4] = r.r8;
    s->header.args[5] = r.r9;
    struct stash *stash = 0;
    if (action->flags & AT_ENTER) {
        stash = stashes.lookup(&id);
        if (stash && stash->nr != nr)
            stash = 0;
    }
    remember_root(s, task);
    put_paths(s, action, stash);
    put_buffers(s, action, stash);
    if (stash)
        stashes.delete(&id);
    put_directories(s, action, task);
    put_fd(s, action, task);
    if (action->flags & CREDENTIALS && result >= 0)
        put_process(s, task, 0, 0, 0);
    submit(s, nr);
    return 0;
}

int on_exec(struct bpf_raw_tracepoint_args *ctx) {
    u64 task = current_task();
    u32 old_tid = ctx->args[1];
    u64 id = bpf_get_current_pid_tgid() >> 32 << 32 | old_tid;
    if (is_own(id >> 32))
        return 0;
    struct stash *stash = stashes.lookup(&id);
    u32 nr = stash ? stash->nr : NR_execve;
    struct action *action = actions.lookup(&nr);
    struct scratch *s = new_record(DIRECT, task, KIND_EXEC, nr, 0);
    if (!s || !action)
        return 0;
    if (stash) {
        put_stash(s, SLOT_PATH1, stash);
        stashes.delete(&id);
    }
    remember_root(s, task);
    u64 mm = pointer(task, OFF_task_struct_mm);
    u64 file = pointer(mm, OFF_mm_struct_exe_file);
    put_path(s, SLOT_EXE, pointer(file, OFF_file_f_path + OFF_path_mnt),
             pointer(file, OFF_file_f_path + OFF_path_dentry));
    put_process(s, task, mm, file, s->pseudo);
    u64 arg_start = pointer(mm, OFF_mm_struct_arg_start), arg_end = pointer(mm, OFF_mm_struct_arg_end);
    put_user_bytes(s, SLOT_ARGS, arg_start, arg_end - arg_start, STRING_LIMIT);
    u64 env_start = pointer(mm, OFF_mm_struct_env_start), env_end = pointer(mm, OFF_mm_struct_env_end);
    put_user_bytes(s, SLOT_ENV, env_start, env_end - env_start, STRING_LIMIT);
    put_cwd(s, task, SLOT_CWD);
    put_cgroup(s, task);
    submit(s, CALL_LIMIT + KIND_EXEC);
    return 0;
}

int on_fork(struct bpf_raw_tracepoint_args *ctx) {
    u64 child = ctx->args[0], flags = ctx->args[1];
    if ((flags & 0x10000) || is_own(word(child, OFF_task_struct_tgid))) /* CLONE_THREAD */
        return 0;
    struct scratch *s = new_record(0, child, KIND_FORK, CALL_LIMIT + KIND_FORK, 0);
    if (!s)
        return 0;
    s->header.args[0] = flags;
    s->header.args[1] = bpf_get_current_pid_tgid() >> 32;
    put_process(s, child, 0, 0, 0);
    submit(s, CALL_LIMIT + KIND_FORK);
    return 0;
}

int on_exit(struct bpf_raw_tracepoint_args *ctx) {
    u64 task = current_task(), id = bpf_get_current_pid_tgid();
    stashes.delete(&id);
    if (is_own(id >> 32))
        return 0;
    u64 signal = pointer(task, OFF_task_struct_signal);
    if (word(signal, OFF_signal_struct_live))
        return 0; /* other threads live on */
    struct scratch *s = new_record(DIRECT, task, KIND_EXIT, CALL_LIMIT + KIND_EXIT, 0);
    if (!s)
        return 0;
    u32 code = word(signal, OFF_signal_struct_group_exit_code);
    s->header.result = code ? code : word(task, OFF_task_struct_exit_code);
    submit(s, CALL_LIMIT + KIND_EXIT);
    return 0;
}
