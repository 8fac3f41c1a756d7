"""Sales by country."""
