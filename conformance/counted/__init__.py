"""What `census.py` counts: the kinds of values that accepted vectors have."""
