"""Outputs: where events go besides the series and the log."""
