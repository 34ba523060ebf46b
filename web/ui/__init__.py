"""The pages of the user interface: static files, no framework, no request to anywhere else."""
