"""Following the log: the engine, its spans of slices, and the folding of pages."""
