"""Hardware detection, and nothing else."""
