"""Remote write: receiver and sender."""
