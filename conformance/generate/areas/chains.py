"""Good chains of every kind, and the chains of which most invalid cases are spoiled copies."""

from __future__ import annotations

from functools import partial

from generate.area import area
from generate.standard import exponent, standard

chains = area("chains")

# fmt: off
chains.read("standard", "A delta of two slices, shift 4, a bitmap with replaced words and a tensor changed all over",
    "TRM-001 RDR-001", standard)
chains.read("standard-zstd", "The same delta, compressed with zstd", "TRM-001", partial(standard, compression="zstd"))
chains.read("standard-exponent", "The same delta, with one chunk in order exponent",
    "TRM-001", partial(standard, **exponent()), level="reader-exponent")
chains.read("standard-of-two", "The same delta, without a version after it", "TRM-001", partial(standard, last=False))
# fmt: on
