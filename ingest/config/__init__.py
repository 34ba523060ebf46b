"""The configuration file: typed, strict models of Prometheus's `prometheus.yml` and Vedette's additions."""
