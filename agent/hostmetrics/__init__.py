"""Metrics of the host from /proc and /sys under node_exporter's names, one file a family."""
