"""Reads files in processes of their own that may break, but break nothing else."""
