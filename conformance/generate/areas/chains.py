"""Good chains of every kind, and the chains of which most invalid cases are spoiled copies."""

from __future__ import annotations

from generate.cases import read
from generate.standard import exponent, standard

read(
    "standard",
    area="chains",
    title="A delta of two slices, shift 4, a bitmap with replaced words and a tensor changed all over",
    requirements=["TD-TRM-001", "TD-RDR-001"],
    chain=standard,
)
read(
    "standard-zstd",
    area="chains",
    title="The same delta, compressed with zstd",
    requirements=["TD-TRM-001"],
    chain=lambda: standard(compression="zstd"),
)
read(
    "standard-exponent",
    area="chains",
    title="The same delta, with one chunk in order exponent",
    requirements=["TD-TRM-001"],
    chain=lambda: standard(**exponent()),
    level="reader-exponent",
)
read(
    "standard-of-two",
    area="chains",
    title="The same delta, without a version after it",
    requirements=["TD-TRM-001"],
    chain=lambda: standard(last=False),
)
