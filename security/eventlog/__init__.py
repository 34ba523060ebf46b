"""The event log: every event with all its fields, beside the blocks of the store."""
