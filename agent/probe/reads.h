/* How kernel and user memory is read, and how a record is filled and sent. */

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
