"""The catalogue of fields that conditions and outputs may name."""
