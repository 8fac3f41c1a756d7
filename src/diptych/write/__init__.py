"""The write side: decision models, decisions, and the bus that takes commands to the log."""
