"""Runtime security: Falco rule files, events of every source, outputs."""
