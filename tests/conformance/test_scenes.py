"""What the cases about routes stand on: states that no fingerprint tells apart, and edges of a given size."""

from __future__ import annotations

import pytest

from generate.builder import Builder, manifest_name, shortcut_name
from generate.graph import graph
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


def test_a_text_makes_the_edges_that_it_says() -> None:
    states = walk(3)
    expected = Builder()
    expected.full(0, states[0])
    move(expected, 1, states[1], 0, size=2345)
    expected.delta(2, states[2], 1)
    lost = expected.delta(2, states[2], 0, shortcut="tag", features=["strided-slices"])
    expected.full(2, states[2], shortcut="")
    expected.remove(lost["packs"][0]["path"])
    expected.remove(manifest_name(1))
    builder = graph("0 -> 1: 2345 deleted -> 2, 0 => 2.tag strided gone, => 2")
    assert builder.objects == expected.objects
    assert {shortcut_name(2, 0, "tag"), shortcut_name(2, None)} < set(builder.objects)


@pytest.mark.parametrize("text", ["0 -> 1 lost", "0 - 1", "0 -> 1;2", "0 -> 1: many"])
def test_a_text_with_a_mistake_is_refused(text: str) -> None:
    with pytest.raises(AssertionError):
        graph(text)


def test_options_of_an_edge_that_is_not_there_are_refused() -> None:
    with pytest.raises(AssertionError, match="no edge 1 -> 2"):
        graph("0 -> 1", at={"1 -> 2": {"features": []}})
