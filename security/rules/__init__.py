"""The life of a rule in stages: read, collect, resolve, compile, index by event type."""
