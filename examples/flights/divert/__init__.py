"""Land somewhere else."""
