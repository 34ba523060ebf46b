"""Event sources: each turns its raw input into batches of events with columns of fields."""
