"""Take a flight off the schedule."""
