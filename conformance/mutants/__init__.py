"""Readers that are wrong on purpose, by which the suite is tested (see `selftest.py`)."""
