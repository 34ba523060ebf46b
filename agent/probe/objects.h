/* What is told of paths, descriptors, sockets and processes. */

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
    d.open_mode = PART(s, u32, file, OFF_file_f_mode);
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
