"""The bare floors: the same work on the same driver, without a framework."""
