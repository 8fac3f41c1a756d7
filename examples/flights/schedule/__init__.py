"""Put a flight on the schedule."""
