"""The kernel side: offsets from BTF, the BPF program, and the ring its records arrive through."""
