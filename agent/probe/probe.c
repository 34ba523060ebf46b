/* What runs in the kernel: three families of tracepoints, one ring buffer.
 *
 * Kernel pointers are plain u64, read by GET, READ_SPAN or, from the running task on, as plain loads; offsets come
 * from BTF (OFF_*, -1 when the running kernel lacks the member). The headers this file is compiled with may belong to another version.
 * A record is a `struct header` and then fields: u32 slot, u32 length, bytes, padding to 8.
 * Offsets into the scratch are kept in the scratch itself: the verifier then forgets their values at each step,
 * and states of a loop become equal instead of multiplying.
 */

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
