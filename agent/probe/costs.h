/* Calls that are added up instead of being reported: the mirror of agent/probe/callcosts.py. */

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
