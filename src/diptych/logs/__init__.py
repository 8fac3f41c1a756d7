"""Adapters of the log port. Each knows the spine only, never another adapter."""
