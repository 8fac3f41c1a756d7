"""Sales by product; postage, discounts and the like are there too, marked."""
