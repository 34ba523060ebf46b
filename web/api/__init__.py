"""HTTP API handlers, one file a family of endpoints."""
