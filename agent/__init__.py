"""The host agent: kernel events, process and container state, host and container metrics."""
