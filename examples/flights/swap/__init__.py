"""Give a flight another aircraft before it departs."""
