"""The store: labels, head, WAL, blocks, index, compaction, select."""
