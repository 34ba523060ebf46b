"""StatsD and DogStatsD datagrams into series, with the names that statsd_exporter gives by default."""
