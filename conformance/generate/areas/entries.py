"""Pack entries of a manifest, and paths (SPEC.md sections 4.4 and 4.8)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from generate.builder import Builder
from generate.cases import read, reject
from generate.model import Model
from generate.standard import setting, standard, without

AREA = "entries"


def _bad(
    slug: str,
    rule: str,
    title: str,
    entry: Callable[[dict[str, Any]], Any],
    error: str = "malformed",
    twin: str = "standard-of-two",
) -> None:
    reject(
        slug,
        area=AREA,
        title=title,
        requirements=[rule],
        chain=partial(standard, last=False, entry=entry),
        error=error,
        twin=twin,
    )


for _member in ("sha256", "size", "path", "content", "tensors", "changed"):
    _bad(f"pack-entry-without-{_member}", "TD-JSN-011", f"A pack entry without `{_member}`", without(_member))

_TYPES: dict[str, tuple[Any, str]] = {
    "sha256": (None, "null"),
    "size": ("1", "a string"),
    "path": (7, "a number"),
    "content": (None, "null"),
    "tensors": ({}, "an object"),
    "changed": (None, "null"),
    "sources": (None, "null"),
    "name": (None, "null"),
}
for _member, (_value, _what) in _TYPES.items():
    _bad(
        f"pack-entry-{_member}-of-another-type",
        "TD-JSN-012",
        f"A pack entry whose `{_member}` is {_what}",
        setting(**{_member: _value}),
    )
_bad("pack-entry-sources-of-numbers", "TD-JSN-012", "A pack entry whose sources are numbers", setting(sources=[1]))
_bad(
    "pack-entry-sha256-upper-case",
    "TD-JSN-015",
    "A digest in upper case",
    lambda e: e.update(sha256=e["sha256"].upper()),
)
reject(
    "pack-entry-not-an-object",
    area=AREA,
    title="A number among the pack entries",
    requirements=["TD-JSN-012"],
    chain=partial(standard, last=False, manifest=lambda document: document["packs"].append(7)),
    error="malformed",
    twin="standard-of-two",
)
_bad("pack-entry-path-null", "TD-MAN-009", "A path that is null without sources", setting(path=None))
_bad(
    "pack-entry-path-null-sources-empty",
    "TD-MAN-009",
    "A path that is null with no source in the list",
    setting(path=None, sources=[]),
)
_bad(
    "pack-entry-content-unknown",
    "TD-MAN-012",
    "Content that is neither chunks nor tensors",
    setting(content="archives"),
    "unsupported",
)
_bad("pack-entry-content-upper-case", "TD-MAN-012", "Content in upper case", setting(content="Chunks"), "unsupported")
_bad("pack-entry-size-2-40-and-one", "TD-LIM-004", "A size of 2^40 + 1", setting(size=2**40 + 1), "limit")

for _name, (_tensors, _what) in {
    "empty": ([2, 2], "an empty range"),
    "backwards": ([4, 0], "a range that ends before it begins"),
    "one-number": ([0], "one number"),
    "three-numbers": ([0, 4, 4], "three numbers"),
    "beyond-the-layout": ([0, 5], "a range beyond the layout"),
}.items():
    _bad(f"pack-tensors-{_name}", "TD-MAN-001", f"`tensors` is {_what}", setting(tensors=_tensors))
for _name, (_tensors, _what) in {
    "too-narrow-in-front": ([1, 4], "lacks the first tensor of the pack"),
    "too-narrow-at-the-end": ([0, 3], "lacks the last tensor of the pack"),
    "far-beyond": ([0, 2**53 - 1], "ends at 2^53 - 1"),
}.items():
    _bad(f"pack-tensors-{_name}", "TD-MAN-010", f"`tensors` {_what}", setting(tensors=_tensors))


def _middle_models(states: list[Model]) -> None:
    states[1].update({name: states[0][name] for name in ("a.weight", "d.mask")})


def _middle(**how: Any) -> Callable[[], Builder]:
    """A delta whose pack has the two tensors in the middle of the layout."""
    return partial(
        standard, models=_middle_models, plan=lambda plan: plan.__setitem__(slice(4), plan[1:3]), last=False, **how
    )


read(
    "pack-of-the-middle",
    area=AREA,
    title="A pack of the two tensors in the middle of the layout, with `tensors` [1, 3]",
    requirements=["TD-MAN-010", "TD-MAN-011"],
    chain=_middle(),
)
for _name, _tensors, _what in (
    ("too-wide-in-front", [0, 3], "begins before the first tensor of the pack"),
    ("too-wide-at-the-end", [1, 4], "ends after the last tensor of the pack"),
):
    reject(
        f"pack-tensors-{_name}",
        area=AREA,
        title=f"`tensors` {_what}",
        requirements=["TD-MAN-010"],
        chain=_middle(entry=setting(tensors=_tensors)),
        error="malformed",
        twin="pack-of-the-middle",
    )


def _counted(by: int) -> Callable[[dict[str, Any]], None]:
    return lambda entry: entry.update(changed=entry["changed"] + by)


for _name, _by, _what in (("one-more", 1, "one more than"), ("one-less", -1, "one less than")):
    _bad(
        f"pack-changed-{_name}",
        "TD-MAN-011",
        f"`changed` is {_what} the sum of the chunks' counts",
        _counted(_by),
    )
_bad("pack-changed-0", "TD-MAN-011", "`changed` is 0", setting(changed=0))

# -- paths -------------------------------------------------------------------------------------------------------------

_X = "packs/x.safetensors"

#: Rule, path, where a reader that lacks the rule finds the pack, what is wrong.
_PATHS: dict[str, tuple[str, str, str, str]] = {
    "up": ("TD-PTH-001", "packs/../x.safetensors", "x.safetensors", "goes up from packs/"),
    "up-and-down": ("TD-PTH-001", "packs/../packs/x.safetensors", _X, "goes up and down again"),
    "absolute": ("TD-PTH-001", "/packs/x.safetensors", _X, "is absolute"),
    "backslash": ("TD-PTH-001", "packs/y\\..\\x.safetensors", _X, "has backslashes"),
    "hidden": ("TD-PTH-001", "packs/.x.safetensors", "packs/.x.safetensors", "has a name that begins with a dot"),
    "hidden-folder": ("TD-PTH-001", "packs/.y/x", "packs/.y/x", "has a folder that begins with a dot"),
    "dot": ("TD-PTH-001", "packs/./x.safetensors", _X, "has a dot for a name"),
    "empty-segment": ("TD-PTH-001", "packs//x.safetensors", _X, "has two slashes"),
    "trailing-slash": ("TD-PTH-001", "packs/x.safetensors/", _X, "ends with a slash"),
    "space": ("TD-PTH-001", "packs/x y", "packs/x y", "has a space"),
    "tilde": ("TD-PTH-001", "packs/~x", "packs/~x", "has a tilde"),
    "percent": ("TD-PTH-001", "packs/%78.safetensors", _X, "has a percent sign"),
    "letters": ("TD-PTH-001", "packs/é.safetensors", _X, "has a letter that is not ASCII"),
    "newline": ("TD-PTH-001", "packs/x.safetensors\n", _X, "ends with a line feed"),
    "nul": ("TD-PTH-001", "packs/x.safetensors\0", _X, "ends with a NUL"),
    "drive": ("TD-PTH-001", "C:/packs/x.safetensors", _X, "has a colon"),
    "empty": ("TD-PTH-001", "", _X, "is empty"),
    "201-characters": ("TD-PTH-002", "packs/" + "x" * 195, "packs/" + "x" * 195, "has 201 characters"),
    "elsewhere": ("TD-PTH-003", "files/x.safetensors", "files/x.safetensors", "begins with files/"),
    "bare": ("TD-PTH-003", "x.safetensors", "x.safetensors", "is a name alone"),
    "prefix-only-looks-right": ("TD-PTH-003", "packs2/x.safetensors", "packs2/x.safetensors", "begins with packs2/"),
    "upper-case": ("TD-PTH-003", "Packs/x.safetensors", "Packs/x.safetensors", "begins with Packs/"),
}


def _moved(path: str, place: str) -> Callable[[], Builder]:
    """The pack's entry has a path, and its bytes lie at a place."""

    def after(builder: Builder) -> None:
        name = f"packs/{builder.manifests[1]['packs'][0]['sha256']}.safetensors"
        builder.put(place, builder.get(name))
        builder.remove(name)

    return partial(standard, last=False, entry=setting(path=path), after=after)


read(
    "pack-path-without-a-digest",
    area=AREA,
    title="A pack at packs/x.safetensors",
    requirements=["TD-PTH-005"],
    chain=_moved(_X, _X),
)
for _slug, (_rule, _path, _place, _what) in _PATHS.items():
    reject(
        f"pack-path-{_slug}",
        area=AREA,
        title=f"The path of a pack {_what}",
        requirements=[_rule],
        chain=_moved(_path, _place),
        error="malformed",
        twin="pack-path-without-a-digest",
    )
