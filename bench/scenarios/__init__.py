"""The scenarios, a module each: what is measured, for ours and for everybody else."""
