"""Every way in: remote write, scraping with discovery and relabelling, OTLP, StatsD."""
