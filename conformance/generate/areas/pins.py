"""Pins, which readers ignore and collectors heed (SPEC.md section 13)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from generate.builder import Builder, dumps
from generate.edits import Area, two_versions
from generate.model import CHAIN, FOREIGN, FORMAT
from generate.scenes import line, walk
from generate.writing import Desk, write


def pin(**members: Any) -> bytes:
    return dumps({"tensordelta": FORMAT, "chain": CHAIN, "version": 0} | members)


def strange() -> Builder:
    builder = two_versions()
    for name, data in {
        "replica-7.json": pin(seconds=604800),
        "of-another-chain.json": pin(chain=FOREIGN),
        "of-format-2.json": pin(tensordelta="2.0"),
        "of-a-version-that-never-was.json": pin(version=7),
        "with-null.json": pin(seconds=None),
        "no-json.json": b"{",
        "clock-1": b"",
    }.items():
        builder.put(f"pins/{name}", data)
    return builder


Area("retention", strange)(
    "pins-are-ignored", "RET-008", "Pins of several kinds, most of which break a rule, are nothing to a reader"
).good(to=None, level="chain", verify=None)


def pinned(**pins: bytes) -> Builder:
    """A full version, two deltas, and a full version that needs none of the others; the pins by name."""
    states = walk(4, 64)
    builder = line(states[:3])
    builder.full(3, states[3])
    for name, data in pins.items():
        builder.put(f"pins/{name}.json", data)
    return builder


def collect(slug: str, rules: str, title: str, script: Callable[[Desk], Any], **pins: bytes) -> None:
    chain = partial(pinned, **pins)
    write(f"collect-with-a-pin-{slug}", title, rules, script, chain=chain, needs=("collect",))


HELD: tuple[tuple[str, str, dict[str, bytes]], ...] = (
    ("for-ever", "A pin without `seconds`", {"a": pin(version=1)}),
    ("for-a-week", "A pin that holds for a week", {"a": pin(version=1, seconds=604800)}),
    ("of-format-1-7", "A pin of format 1.7 with a field more", {"a": pin(tensordelta="1.7", version=1, more=[])}),
    (
        "beside-others",
        "A pin that holds, beside one that has expired and one of another chain",
        {"a": pin(version=1, seconds=0), "b": pin(version=1), "c": pin(version=1, chain=FOREIGN)},
    ),
)
for slug, title, pins in HELD:
    title += " keeps a version that nothing else needs, and what it starts from"
    collect(slug, "RET-007 RET-001", title, lambda desk: desk.collect([3]), **pins)
collect(
    "that-came-since",
    "RET-007 RET-001",
    "A pin is put between two collections: the second one heeds it",
    lambda desk: desk.collect([1, 3]).put({"pins/a.json": pin(version=1)}).collect([3]),
)


def refused_or_idle(desk: Desk, name: str) -> None:
    """The collector may report the pin or not; in both cases all versions stay."""
    asked = {"chain": "chain", "keep": [3], "grace": 86400}
    desk.steps.append({"op": "collect", "input": asked, "expect": {"any": [{"error": [name]}, {}]}})


for slug, title, error, data in (
    ("with-null", "A pin whose `seconds` is null", "malformed", pin(version=1, seconds=None)),
    ("without-a-version", "A pin without a version", "malformed", dumps({"tensordelta": FORMAT, "chain": CHAIN})),
    ("that-is-no-json", "A pin that is cut short", "malformed", pin()[:-3]),
    ("with-two-versions", "A pin with two members `version`", "malformed", pin()[:-1] + b',"version":3}'),
    ("of-format-2", "A pin of format 2.0", "unsupported", pin(tensordelta="2.0")),
    ("that-is-too-large", "A pin of more than 64 KiB", "limit", pin() + b" " * 65536),
):
    title += " breaks a rule: no version is dropped while it is young"
    collect(slug, "RET-018", title, partial(refused_or_idle, name=error), a=data)
