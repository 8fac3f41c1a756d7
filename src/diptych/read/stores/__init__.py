"""Adapters of the view store."""
