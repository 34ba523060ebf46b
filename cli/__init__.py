"""The `vedette` command: reads the configuration and wires the parts together."""
