"""Tests that other libraries ship for third-party stores, run against our logs."""
