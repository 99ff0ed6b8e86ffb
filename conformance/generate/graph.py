"""Chains as text: the versions, the edges between them, and what is wrong with each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from generate.builder import Builder, manifest_name, shortcut_name
from generate.model import FOREIGN, Model
from generate.scenes import move, walk
from generate.standard import flipped

Chain = Callable[[], Builder]

ANOTHER = "0123456789abcdef"
"""A fingerprint that no state here has."""

#: Faults of the document of an edge, by the word for each: options of `Builder.edge`.
WRONG: dict[str, dict[str, Any]] = {
    "torn": {"text": lambda data: data[:-1]},
    "later": {"tensordelta": "2.0"},
    "foreign": {"chain": FOREIGN},
    "strided": {"features": ["strided-slices"]},  # an unknown feature
    "elsewhere": {"fingerprint": ANOTHER},
    "wrong-base": {"hook": lambda document: document["base"].update(fingerprint=ANOTHER)},
}


class Edge(NamedTuple):
    """One edge of the text, from nothing or from a version; with a tag, which may be empty, it is a shortcut."""

    start: int | None
    to: int
    tag: str | None
    size: int | None
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        """The edge in the text's form, without its size and words."""
        arrow = "->" if self.tag is None else "=>"
        end = f"{self.to}.{self.tag}" if self.tag else f"{self.to}"
        base = "" if self.start is None else f"{self.start} "
        return end if self.tag is None and not base else f"{base}{arrow} {end}"

    @property
    def document(self) -> str:
        """The name of its manifest or shortcut."""
        return manifest_name(self.to) if self.tag is None else shortcut_name(self.to, self.start, self.tag)


_STEP = re.compile(r"(->|=>)? *(\d+)(?:\.(\w+))?(?:: (\d+))?((?: [a-z]+(?:-[a-z]+)*)*) *")


def _edges(text: str) -> Iterator[Edge]:
    made: set[int] = set()
    for path in text.split(", "):
        assert not _STEP.sub("", path), path
        start: int | None = None
        for arrow, version, tag, size, words in _STEP.findall(path):
            to = int(version)
            if arrow or to not in made:
                yield Edge(start, to, tag if arrow == "=>" else None, int(size) if size else None, tuple(words.split()))
            made.add(to)
            start = to


def graph(
    text: str,
    states: Mapping[int, Model] | Sequence[Model] | None = None,
    *,
    others: Mapping[int, Model] | None = None,
    at: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 1,
    tight: bool = False,
) -> Builder:
    """A chain from a text such as `0 -> 1 -> 2: 1800 gone, 0 => 2`.

    `0 -> 1` is a delta; `0`, at its first occurrence, a full version; `0 => 2` a shortcut, `=> 2` a full one, and
    `0 => 2.tag` one with a tag. A number after a colon is the size of the edge's pack. Words say what is wrong with
    the edge: those of `WRONG`; its packs are `gone` or `altered`; its manifest or shortcut is `deleted` or `garbage`;
    it is `empty`, that is, without packs.

    Args:
        states: by version; those of `walk` unless given.
        others: by version, the states that shortcuts lead to, where they differ from those of the manifests.
        at: by edge, more options of `Builder.edge` and `move`; `state`: the state that it leads to.
        seed: of `walk`.
        tight: headers of packs are not padded.
    """
    edges = list(_edges(text))
    known = walk(max(edge.to for edge in edges) + 1, seed) if states is None else states
    more = {name: dict(options) for name, options in (at or {}).items()}
    builder = Builder()
    packs: list[list[str]] = []
    for edge in edges:
        options: dict[str, Any] = {} if edge.tag is None else {"shortcut": edge.tag}
        for word in edge.words:
            options |= WRONG.get(word, {})
        options |= more.pop(edge.text, {})
        own = known[edge.to] if edge.tag is None or not others else others.get(edge.to, known[edge.to])
        model = options.pop("state", own)
        if "empty" in edge.words:
            made = builder.edge(edge.to, model, [], base=edge.start, **options)
        elif tight or edge.size is not None:
            made = move(builder, edge.to, model, edge.start, size=edge.size, **options)
        elif edge.start is None:
            made = builder.full(edge.to, model, **options)
        else:
            made = builder.delta(edge.to, model, edge.start, **options)
        packs.append([entry["path"] for entry in made["packs"]])
    assert not more, f"no edge {', '.join(more)}"
    for edge, names in zip(edges, packs, strict=True):
        for word in edge.words:
            _damage(builder, word, edge.document, names)
    return builder


def _damage(builder: Builder, word: str, document: str, packs: Sequence[str]) -> None:
    if word == "gone":
        for name in packs:
            builder.remove(name)
    elif word == "altered":
        for name in packs:
            builder.change(name, flipped(-1))
    elif word == "deleted":
        builder.remove(document)
    elif word == "garbage":
        builder.put(document, b"{")
    else:
        assert word in WRONG or word == "empty", word
