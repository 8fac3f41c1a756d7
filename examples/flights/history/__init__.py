"""What happened to one flight, read from the log itself: no view, no projection."""
