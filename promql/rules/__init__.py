"""Rule files: reading and checking them, and evaluating recording rules."""
