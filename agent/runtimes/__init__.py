"""What container runtimes say about containers: names, images, mounts, pods."""
