"""Sales by month, and how many customers came for the first time."""
