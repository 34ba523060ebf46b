"""Reader of the blocks that Prometheus writes. Read-only: nothing here changes a Prometheus directory."""
