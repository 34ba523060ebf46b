"""Operators of the query engine, one file a family."""
