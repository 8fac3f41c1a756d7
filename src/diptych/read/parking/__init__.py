"""Parked keys: what a projection could not fold, and how it comes back."""
