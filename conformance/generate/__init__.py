"""Writes the vectors of the conformance suite. Nothing here uses the reference implementation."""
