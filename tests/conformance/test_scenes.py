"""What the cases about routes stand on: states that no fingerprint tells apart, and edges of a given size."""

from __future__ import annotations

from generate.builder import Builder
from generate.scenes import UNSEEN, move, twins, walk

MASK = (1 << 64) - 1


def mix(z: int) -> int:
    """SPEC.md section 8.1, in Python's integers."""
    z = (z + 0x9E3779B97F4A7C15) & MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def test_the_differences_add_nothing() -> None:
    assert sum(step * (mix(number) | 1) for number, step in enumerate(UNSEEN)) & MASK == 0
    assert all(UNSEEN)


def test_twins_differ_in_words_alone() -> None:
    _, after, other = twins()
    builder = Builder()
    documents = [builder.full(version, state) for version, state in enumerate((after, other))]
    assert documents[0]["fingerprint"] == documents[1]["fingerprint"]
    assert documents[0]["layout"] == documents[1]["layout"]
    assert documents[0]["tensor_fingerprints"] == documents[1]["tensor_fingerprints"]
    assert (after["t"].words != other["t"].words).any()


def test_a_pack_has_the_size_that_was_asked_for() -> None:
    states = walk(2)
    builder = Builder()
    builder.full(0, states[0])
    document = move(builder, 1, states[1], 0, size=2345)
    assert [entry["size"] for entry in document["packs"]] == [2345]
    assert len(builder.get(document["packs"][0]["path"])) == 2345
