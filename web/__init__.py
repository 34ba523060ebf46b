"""The HTTP side: API, streaming JSON, own metrics, user interface."""
