"""Service discovery: sources of scrape targets."""
