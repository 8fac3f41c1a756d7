"""What an airport has seen, day by day."""
