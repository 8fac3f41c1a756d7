"""Land where the flight was to land."""
