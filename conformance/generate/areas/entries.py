"""Pack entries of a manifest, and paths (SPEC.md sections 4.4 and 4.8)."""

from __future__ import annotations

from functools import partial
from typing import Any

from generate.builder import Builder
from generate.model import Model
from generate.rows import Build, Rows
from generate.standard import setting, standard, without

ROWS = Rows("entries", twin="standard-of-two")


def fault(slug: str, title: str, rule: str, entry: Any, error: str = "malformed", **more: Any) -> None:
    """The entry of the standard chain's pack is spoiled: by a function, or by members set."""
    how = setting(**entry) if isinstance(entry, dict) else entry
    ROWS.reject(f"pack-{slug}", title, rule, partial(standard, last=False, entry=how, **more), error)


def middle(**how: Any) -> Build:
    """A delta whose pack has the two tensors in the middle of the layout."""

    def models(states: list[Model]) -> None:
        states[1].update({name: states[0][name] for name in ("a.weight", "d.mask")})

    return partial(standard, models=models, plan=lambda plan: plan.__setitem__(slice(4), plan[1:3]), last=False, **how)


def ends(**how: Any) -> Build:
    """A delta whose pack has the first and the last tensor of the layout."""

    def models(states: list[Model]) -> None:
        states[1].update({name: states[0][name] for name in ("b.bias", "c.ids")})

    def plan(chunks: list[Any]) -> None:
        chunks[:] = [chunks[0], chunks[3]]

    return partial(standard, models=models, plan=plan, last=False, **how)


def sha256(builder: Builder) -> str:
    """The digest of version 1's first pack."""
    return str(builder.manifests[1]["packs"][0]["sha256"])


def at(path: str, place: str = "") -> Build:
    """The pack's entry has a path, and its bytes lie there, or at another place."""

    def after(builder: Builder) -> None:
        (name,) = (name for name in builder.objects if name.startswith(f"packs/{sha256(builder)}-"))
        builder.put(place or path, builder.get(name))
        builder.remove(name)

    return partial(standard, last=False, entry=setting(path=path), after=after)


# fmt: off
for member in ("sha256", "size", "path", "content", "tensors", "changed"):
    fault(f"entry-without-{member}", f"A pack entry without `{member}`", "JSN-011", without(member))
value: Any
for member, value, text in (
    ("sha256", None, "null"), ("size", "1", "a string"), ("path", 7, "a number"), ("content", None, "null"),
    ("tensors", {}, "an object"), ("changed", None, "null"), ("sources", None, "null"), ("name", None, "null"),
):
    fault(f"entry-{member}-of-another-type", f"A pack entry whose `{member}` is {text}", "JSN-012", {member: value})
fault("entry-sources-of-numbers", "A pack entry whose sources are numbers", "JSN-012", {"sources": [1]})
fault("entry-sha256-upper-case", "A digest in upper case", "JSN-015", lambda e: e.update(sha256=e["sha256"].upper()))
ROWS.reject("pack-entry-not-an-object", "A number among the pack entries", "JSN-012",
    partial(standard, last=False, manifest=lambda document: document["packs"].append(7)))
fault("entry-path-null", "A path that is null without sources", "MAN-009", {"path": None})
fault("entry-path-null-sources-empty", "A path that is null with no source in the list", "MAN-009",
    {"path": None, "sources": []})
fault("entry-content-unknown", "Content that is neither chunks nor tensors", "MAN-012",
    {"content": "archives"}, "unsupported")
fault("entry-content-upper-case", "Content in upper case", "MAN-012", {"content": "Chunks"}, "unsupported")
fault("entries-of-2-48-and-more", "A manifest with 257 packs, 256 of which are said to have 2^40 bytes", "LIM-004",
    {}, "limit", manifest=lambda document: document["packs"].extend(
        {**document["packs"][0], "sha256": f"{number:064x}", "path": f"packs/{number}", "size": 2**40}
        for number in range(256)))
fault("entry-size-2-40-and-one", "A size of 2^40 + 1", "LIM-004", {"size": 2**40 + 1}, "limit")

# -- tensors and changed -----------------------------------------------------------------------------------------------

fault("tensors-without-ranges", "`tensors` has no range", "MAN-001", {"tensors": []})
fault("tensors-not-ranges", "`tensors` is two numbers", "JSN-012", {"tensors": [0, 4]})
fault("tensors-empty", "A range of `tensors` is empty", "MAN-001", {"tensors": [[0, 4], [5, 5]]})
fault("tensors-backwards", "A range of `tensors` ends before it begins", "MAN-001", {"tensors": [[4, 0]]})
fault("tensors-one-number", "A range of `tensors` is one number", "JSN-012", {"tensors": [[0]]})
fault("tensors-three-numbers", "A range of `tensors` is three numbers", "JSN-012", {"tensors": [[0, 4, 4]]})
fault("tensors-of-a-string", "A number in `tensors` is a string", "JSN-012", {"tensors": [["0", 4]]})
fault("tensors-beyond-the-layout", "A range of `tensors` ends beyond the layout", "MAN-001", {"tensors": [[0, 5]]})
fault("tensors-far-beyond", "`tensors` ends at 2^53 - 1", "MAN-001", {"tensors": [[0, 2**53 - 1]]})
fault("tensors-that-touch", "Two ranges of `tensors` touch", "MAN-001", {"tensors": [[0, 2], [2, 4]]})
fault("tensors-that-overlap", "Two ranges of `tensors` overlap", "MAN-001", {"tensors": [[0, 3], [2, 4]]})
fault("tensors-descending", "The ranges of `tensors` are in the wrong order", "MAN-001", {"tensors": [[3, 4], [0, 2]]})
fault("tensors-twice", "`tensors` has a range twice", "MAN-001", {"tensors": [[0, 4], [0, 4]]})
fault("tensors-too-narrow-in-front", "`tensors` lacks the first tensor of the pack", "MAN-030", {"tensors": [[1, 4]]})
fault("tensors-too-narrow-at-the-end", "`tensors` lacks the last tensor of the pack", "MAN-030", {"tensors": [[0, 3]]})
fault("tensors-with-a-hole", "`tensors` lacks a tensor in the midst of the pack's", "MAN-030",
    {"tensors": [[0, 2], [3, 4]]})
ROWS.read("pack-of-the-middle", "A pack of the two tensors in the middle of the layout, with `tensors` [1, 3)",
    "MAN-030 MAN-011", middle())
ROWS.read("pack-of-both-ends", "A pack of the first and the last tensor of the layout, with two ranges",
    "MAN-030 MAN-011", ends())
ROWS.read("pack-tensors-joined", "`tensors` joins the first and the last tensor by those between, which the pack lacks",
    "MAN-030", ends(entry=setting(tensors=[[0, 4]])))
ROWS.read("pack-tensors-too-wide-in-front", "`tensors` begins before the first tensor of the pack", "MAN-030",
    middle(entry=setting(tensors=[[0, 3]])))
ROWS.read("pack-tensors-too-wide-at-the-end", "`tensors` ends after the last tensor of the pack", "MAN-030",
    middle(entry=setting(tensors=[[1, 4]])))
ROWS.reject("pack-tensors-of-the-middle-alone", "`tensors` holds the tensors between the two of the pack", "MAN-030",
    ends(entry=setting(tensors=[[1, 3]])), twin="pack-of-both-ends")
fault("changed-one-more", "`changed` is one more than the sum of the chunks' counts", "MAN-011",
    lambda entry: entry.update(changed=entry["changed"] + 1))
fault("changed-one-less", "`changed` is one less than the sum of the chunks' counts", "MAN-011",
    lambda entry: entry.update(changed=entry["changed"] - 1))
fault("changed-0", "`changed` is 0", "MAN-011", {"changed": 0})

# -- paths -------------------------------------------------------------------------------------------------------------
# The last column is where a reader without the check looks for the pack, if not at the path as it is.

PLACE = "packs/x.safetensors"
ROWS.read("pack-path-without-a-digest", "A pack at packs/x.safetensors", "PTH-005", at(PLACE))
for slug, text, rule, path, place in (
    ("up", "goes up from packs/", "PTH-001", "packs/../x.safetensors", "x.safetensors"),
    ("up-and-down", "goes up and down again", "PTH-001", "packs/../packs/x.safetensors", PLACE),
    ("absolute", "is absolute", "PTH-001", "/packs/x.safetensors", PLACE),
    ("backslash", "has backslashes", "PTH-001", "packs/y\\..\\x.safetensors", PLACE),
    ("hidden", "has a name that begins with a dot", "PTH-001", "packs/.x.safetensors", ""),
    ("hidden-folder", "has a folder that begins with a dot", "PTH-001", "packs/.y/x", ""),
    ("dot", "has a dot for a name", "PTH-001", "packs/./x.safetensors", PLACE),
    ("empty-segment", "has two slashes", "PTH-001", "packs//x.safetensors", PLACE),
    ("trailing-slash", "ends with a slash", "PTH-001", "packs/x.safetensors/", PLACE),
    ("space", "has a space", "PTH-001", "packs/x y", ""),
    ("tilde", "has a tilde", "PTH-001", "packs/~x", ""),
    ("percent", "has a percent sign", "PTH-001", "packs/%78.safetensors", PLACE),
    ("letters", "has a letter that is not ASCII", "PTH-001", "packs/é.safetensors", PLACE),
    ("newline", "ends with a line feed", "PTH-001", "packs/x.safetensors\n", PLACE),
    ("nul", "ends with a NUL", "PTH-001", "packs/x.safetensors\0", PLACE),
    ("drive", "has a colon", "PTH-001", "C:/packs/x.safetensors", PLACE),
    ("empty", "is empty", "PTH-001", "", PLACE),
    ("201-characters", "has 201 characters", "PTH-002", "packs/" + "x" * 195, ""),
    ("elsewhere", "begins with files/", "PTH-003", "files/x.safetensors", ""),
    ("bare", "is a name alone", "PTH-003", "x.safetensors", ""),
    ("prefix-only-looks-right", "begins with packs2/", "PTH-003", "packs2/x.safetensors", ""),
    ("upper-case", "begins with Packs/", "PTH-003", "Packs/x.safetensors", ""),
):
    ROWS.reject(f"pack-path-{slug}", f"The path of a pack {text}", rule, at(path, place),
        twin="pack-path-without-a-digest")
