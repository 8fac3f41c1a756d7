"""Versions of projections: what a change is, and how the next one is built and switched to."""
