"""Shortcuts: their names against their contents, and against their versions (SPEC.md section 4.10)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from generate.builder import Builder, nothing
from generate.model import FOREIGN
from generate.spoiled import bad, good
from generate.standard import flipped, setting, without

AREA = "shortcuts"


_bad = partial(bad, AREA)
_good = partial(good, AREA)


def _unseen(slug: str, rule: str, title: str, error: str, after: Callable[[Builder], Any], **more: Any) -> None:
    _bad(slug, rule, title, error, after, role="verifier", **more)


def _shortcut(how: Callable[[dict[str, Any]], Any], base: int | None = 0) -> Callable[[Builder], None]:
    """A shortcut from version 0 or from nothing to version 1, spoiled."""

    def after(builder: Builder) -> None:
        if base is None:
            builder.full(1, builder.models[1], shortcut="", hook=how)
        else:
            builder.delta(1, builder.models[1], base, shortcut="a", coding={"positions": "bitmap"}, hook=how)

    return after


for _slug, _base, _title in (
    ("shortcut-with-a-tag", 0, "Another encoding of a version's own edge, with a tag"),
    ("shortcut-full", None, "A shortcut from nothing to a version"),
):
    _good(_slug, ["TD-OBJ-005"], _title, _shortcut(nothing, _base))
for _slug, _rule, _error, _title, _how, _base in (
    (
        "shortcut-of-another-version",
        "TD-OBJ-005",
        "malformed",
        "A shortcut whose version is not that of its name",
        setting(version=2),
        0,
    ),
    (
        "shortcut-of-another-base",
        "TD-OBJ-005",
        "malformed",
        "A shortcut with a base under a name that says `full`",
        lambda d: d.update(base={"version": 0, "layout": d["layout"], "fingerprint": d["fingerprint"]}),
        None,
    ),
    (
        "shortcut-without-the-base-of-its-name",
        "TD-OBJ-005",
        "malformed",
        "A shortcut whose base is null under a name that says 0",
        setting(base=None),
        0,
    ),
    (
        "shortcut-of-a-foreign-chain",
        "TD-OBJ-011",
        "conflict",
        "A shortcut that names another chain than `chain.json`",
        setting(chain=FOREIGN),
        0,
    ),
    (
        "shortcut-with-another-fingerprint",
        "TD-MAN-025",
        "conflict",
        "A shortcut whose fingerprint is not that of its version's manifest",
        setting(fingerprint="0123456789abcdef"),
        0,
    ),
    (
        "shortcut-with-another-layout",
        "TD-MAN-025",
        "conflict",
        "A shortcut whose layout is not that of its version's manifest, although the lists are equal",
        None,
        None,
    ),
    ("shortcut-without-packs", "TD-JSN-011", "malformed", "A shortcut without `packs`", without("packs"), 0),
    ("shortcut-of-format-2", "TD-VER-002", "unsupported", "A shortcut of format 2.0", setting(tensordelta="2.0"), 0),
):
    _unseen(
        _slug,
        _rule,
        _title,
        _error,
        _shortcut(_how, _base) if _how else lambda b: _same_layout(b),
        twin="shortcut-full" if _base is None else "shortcut-with-a-tag",
    )


def _same_layout(builder: Builder) -> None:
    """The shortcut's layout has other bytes; all else is right for it."""
    layout = builder.layout(builder.models[1], text=lambda data: data + b" ")
    builder.full(1, builder.models[1], shortcut="", layout=layout)


_unseen(
    "shortcut-with-an-altered-pack",
    "TD-ERR-003",
    "A shortcut that no cheap route uses names a pack that was altered",
    "integrity",
    lambda b: _altered_shortcut(b),
    twin="shortcut-full",
)


def _altered_shortcut(builder: Builder) -> None:
    _shortcut(nothing, None)(builder)
    pack = next(name for name in builder.objects if name.startswith("packs/") and name not in _packs(builder))
    builder.change(pack, flipped(-1))


def _packs(builder: Builder) -> list[str]:
    return [name for version in builder.manifests for name in builder.pack_names(version)]
