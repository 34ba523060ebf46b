"""Checks: small programs that print metrics of one service, run at an interval within limits."""
