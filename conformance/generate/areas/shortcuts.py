"""Shortcuts that disagree with their names or with their versions (SPEC.md section 4.10)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from generate.builder import Builder, identity, nothing
from generate.edits import Area, members_of, two_versions
from generate.model import FOREIGN
from generate.standard import flipped


def tagged(how: Callable[[dict[str, Any]], Any] = nothing) -> Builder:
    """A second encoding of version 1's own edge, under a tag."""
    builder = two_versions()
    builder.delta(1, builder.models[1], 0, shortcut="a", coding={"positions": "bitmap"}, hook=how)
    return builder


def full(
    how: Callable[[dict[str, Any]], Any] = nothing, layout_end: bytes = b"", pack: Callable[[bytes], bytes] = identity
) -> Builder:
    """A shortcut from nothing to version 1; with `layout_end` its layout has other bytes than the version's."""
    builder = two_versions()
    layout = builder.layout(builder.models[1], text=lambda data: data + layout_end)
    document = builder.full(1, builder.models[1], shortcut="", layout=layout, hook=how)
    builder.change(document["packs"][0]["path"], pack)
    return builder


edge = Area("shortcuts", members_of("how", build=tagged), "shortcut-with-a-tag", {"role": "verifier"})
whole = Area("shortcuts", full, "shortcut-full", {"role": "verifier"})
edge("shortcut-with-a-tag", "OBJ-005", "Another encoding of a version's own edge, with a tag").good(role="reader")
whole("shortcut-full", "OBJ-005", "A shortcut from nothing to a version").good(role="reader")

# -- faults that only a verifier has to find: a reader needs no shortcut -----------------------------------------------

edge("shortcut-of-another-version", "OBJ-005", "A shortcut whose version is not that of its name").bad(version=2)
edge("shortcut-without-the-base-of-its-name", "OBJ-005", "A shortcut whose base is null under a name that says 0").bad(
    base=None
)
edge("shortcut-of-a-foreign-chain", "OBJ-011", "A shortcut that names another chain than `chain.json`").bad(
    "conflict", members={"chain": FOREIGN}
)
edge(
    "shortcut-with-another-fingerprint", "MAN-025", "A shortcut whose fingerprint is not that of its version's manifest"
).bad("conflict", fingerprint="0123456789abcdef")
edge("shortcut-with-a-file-that-goes-up", "PTH-001 MAN-001", "A shortcut with a file whose name goes up").bad(
    members={"files": [{"name": "../x", "size": 0, "sha256": "0" * 64, "path": "files/x"}]}
)
edge("shortcut-without-packs", "JSN-011", "A shortcut without `packs`").bad(drop="packs")
edge("shortcut-of-format-2", "VER-002", "A shortcut of format 2.0").bad("unsupported", tensordelta="2.0")

whole("shortcut-of-another-base", "OBJ-005", "A shortcut with a base under a name that says `full`").bad(
    how=lambda d: d.update(base={"version": 0, "layout": d["layout"], "fingerprint": d["fingerprint"]})
)
whole(
    "shortcut-with-another-layout",
    "MAN-025",
    "A shortcut whose layout is not that of its version's manifest, although the lists are equal",
).bad("conflict", layout_end=b" ")
whole(
    "shortcut-with-an-altered-pack", "ERR-003", "A shortcut that no cheap route uses names a pack that was altered"
).bad("integrity", pack=flipped(-1))
