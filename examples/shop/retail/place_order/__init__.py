"""Sell. A customer then holds what was sold; guests hold nothing."""
