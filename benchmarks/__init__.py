"""Measurements; each file says how it is run and what it measures."""
