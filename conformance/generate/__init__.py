"""Writes the vectors of the conformance suite.

Nothing here uses the reference implementation, or the suite's small reader, on which the judge is built: a mistake that
builder and reader shared would be found by neither.
"""
