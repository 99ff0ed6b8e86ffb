"""Pins, which readers ignore and collectors heed (SPEC.md section 13)."""

from __future__ import annotations

from functools import partial
from typing import Any

from generate.builder import Builder, dumps
from generate.cases import read
from generate.model import CHAIN, FOREIGN
from generate.scenes import line, walk
from generate.standard import standard
from generate.writing import Desk, write


def _pin(**members: Any) -> bytes:
    return dumps({"tensordelta": "1.0", "chain": CHAIN, "version": 0} | members)


def _strange() -> Builder:
    builder = standard(last=False)
    for name, data in {
        "pins/replica-7.json": _pin(seconds=604800),
        "pins/of-another-chain.json": _pin(chain=FOREIGN),
        "pins/of-format-2.json": _pin(tensordelta="2.0"),
        "pins/of-a-version-that-never-was.json": _pin(version=7),
        "pins/with-null.json": _pin(seconds=None),
        "pins/no-json.json": b"{",
        "pins/clock-1": b"",
    }.items():
        builder.put(name, data)
    return builder


read(
    "pins-are-ignored",
    area="retention",
    title="Pins of several kinds, most of which break a rule, are nothing to a reader",
    requirements=["TD-RET-008"],
    chain=_strange,
    to=None,
    level="chain",
    verify=None,
)


def _pinned(**pins: bytes) -> Builder:
    """Three versions of deltas, and a full one, which needs none of the others; `pins` by name."""
    states = walk(4, 64)
    builder = line(states[:3])
    builder.full(3, states[3])
    for name, data in pins.items():
        builder.put(f"pins/{name}.json", data)
    return builder


for _slug, _title, _pins in (
    ("for-ever", "A pin without `seconds`", {"a": _pin(version=1)}),
    ("for-a-week", "A pin that holds for a week", {"a": _pin(version=1, seconds=604800)}),
    ("of-format-1-7", "A pin of format 1.7 with a field more", {"a": _pin(tensordelta="1.7", version=1, more=[])}),
    (
        "beside-others",
        "A pin that holds, beside one that has expired and one of another chain",
        {"a": _pin(version=1, seconds=0), "b": _pin(version=1), "c": _pin(version=1, chain=FOREIGN)},
    ),
):
    write(
        f"collect-with-a-pin-{_slug}",
        f"{_title} keeps a version that nothing else needs, and what it starts from",
        "RET-007 RET-001",
        lambda desk: desk.collect([3]),
        chain=partial(_pinned, **_pins),
        needs=("collect",),
    )

write(
    "collect-with-a-pin-that-came-since",
    "A pin is put between two collections: the second one heeds it",
    "RET-007 RET-001",
    lambda desk: desk.collect([1, 3]).put({"pins/a.json": _pin(version=1)}).collect([3]),
    chain=_pinned,
    needs=("collect",),
)


def _refused_or_idle(desk: Desk, name: str) -> None:
    """The collector may report the pin; whether it does or not, all versions stay."""
    asked = {"chain": "chain", "keep": [3], "grace": 0}
    expect: dict[str, Any] = {"any": [{"error": [name]}, {}]}
    desk.steps.append({"op": "collect", "input": asked, "expect": expect})


for _slug, _title, _name, _data in (
    ("with-null", "A pin whose `seconds` is null", "malformed", _pin(version=1, seconds=None)),
    ("without-a-version", "A pin without a version", "malformed", dumps({"tensordelta": "1.0", "chain": CHAIN})),
    ("that-is-no-json", "A pin that is cut short", "malformed", _pin()[:-3]),
    ("with-two-versions", "A pin with two members `version`", "malformed", _pin()[:-1] + b',"version":3}'),
    ("of-format-2", "A pin of format 2.0", "unsupported", _pin(tensordelta="2.0")),
    ("that-is-too-large", "A pin of more than 64 KiB", "limit", _pin() + b" " * 65536),
):
    write(
        f"collect-with-a-pin-{_slug}",
        f"{_title} breaks a rule: no version is dropped while it is there",
        "RET-009",
        partial(_refused_or_idle, name=_name),
        chain=partial(_pinned, a=_data),
        needs=("collect",),
    )
