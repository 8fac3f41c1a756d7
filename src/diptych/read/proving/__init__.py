"""The proof: what was applied, held against the log."""
