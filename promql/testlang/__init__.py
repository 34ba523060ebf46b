"""The language of query test files: load series, evaluate, compare (prometheus-surface.md 3.1)."""
