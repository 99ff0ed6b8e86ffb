"""A small, real training run to publish deltas of, and the picture of what publishing it took."""
