"""Generated load: series like those of a node exporter, encoded as remote write."""
