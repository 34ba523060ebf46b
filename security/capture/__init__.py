"""Reading of `.scap` captures: system calls that sysdig or Falco recorded, as batches of events."""
