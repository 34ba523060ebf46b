"""Jitted loops of the ingest path: wire formats to columns."""
