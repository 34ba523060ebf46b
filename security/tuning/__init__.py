"""Tuning of rules from what they raised: replay of stored events, and suggested exceptions."""
