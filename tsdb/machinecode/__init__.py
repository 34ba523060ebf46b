"""How kernels become machine code and get into the process; the loops are in the `kernels` packages."""
