"""Jitted loops of the query engine over CSR sample buffers and [series x steps] matrices."""
