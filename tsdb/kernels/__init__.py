"""Jitted loops of the store: numpy arrays in, numpy arrays out, no Python objects."""
