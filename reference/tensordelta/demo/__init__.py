"""A small but real training run to publish deltas of, and a picture of what publishing it took."""
