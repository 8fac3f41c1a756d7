"""Sales by customer; what guests bought is not in it."""
