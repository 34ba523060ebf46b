"""Scraping: pools, targets, exposition formats, staleness."""
