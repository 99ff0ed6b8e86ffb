"""File entries, and names that files and plain packs share (SPEC.md section 4.9)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from generate.builder import Builder, of_plain
from generate.cases import read, reject
from generate.chains.contents import files as chain_with_files
from generate.standard import setting, standard, without

AREA = "files"


def _bad(
    slug: str,
    rule: str,
    title: str,
    how: Callable[[dict[str, Any]], Any],
    error: str = "malformed",
) -> None:
    """The manifest's only file entry is changed."""
    reject(
        slug,
        area=AREA,
        title=title,
        requirements=[rule],
        chain=partial(standard, last=False, manifest=lambda document: how(document["files"][0])),
        error=error,
        twin="standard-of-two",
    )


# -- entries -----------------------------------------------------------------------------------------------------------

for _member in ("name", "size", "sha256", "path"):
    _bad(f"file-without-{_member}", "TD-JSN-011", f"A file entry without `{_member}`", without(_member))
for _member, _value, _what in (
    ("name", 7, "a number"),
    ("size", "2", "a string"),
    ("sha256", None, "null"),
    ("path", None, "null"),
):
    _bad(
        f"file-{_member}-of-another-type",
        "TD-JSN-012",
        f"A file entry whose `{_member}` is {_what}",
        setting(**{_member: _value}),
    )
_bad("file-size-2-40-and-one", "TD-LIM-004", "A file of 2^40 + 1 bytes", setting(size=2**40 + 1), "limit")
_bad("file-path-in-packs", "TD-PTH-004", "The path of a file begins with packs/", setting(path="packs/x"))
_bad("file-path-up", "TD-PTH-001", "The path of a file goes up from files/", setting(path="files/../x"))
_bad(
    "file-path-201-characters",
    "TD-PTH-002",
    "The path of a file has 201 characters",
    setting(path="files/" + "x" * 195),
)
for _slug, _name, _what in (
    ("up", "../config.json", "goes up"),
    ("up-inside", "a/../config.json", "goes up inside"),
    ("absolute", "/config.json", "is absolute"),
    ("backslash", "a\\b", "has a backslash"),
    ("hidden", ".config", "begins with a dot"),
    ("hidden-folder", "a/.b/c", "has a folder that begins with a dot"),
    ("empty", "", "is empty"),
    ("drive", "C:config.json", "has a colon"),
    ("newline", "config.json\n", "ends with a line feed"),
):
    _bad(f"file-name-{_slug}", "TD-PTH-001", f"The name of a file {_what}", setting(name=_name))
_bad("file-name-201-characters", "TD-PTH-002", "The name of a file has 201 characters", setting(name="x" * 201))

# -- names together ----------------------------------------------------------------------------------------------------


def _more(*names: str) -> Callable[[], Builder]:
    """The standard chain, with more files, all of the same content."""

    def manifest(document: dict[str, Any]) -> None:
        document["files"] += [{**document["files"][0], "name": name} for name in names]

    return partial(standard, last=False, manifest=manifest)


read(
    "file-names-that-are-no-prefixes",
    area=AREA,
    title="Names that are the beginning of others, but not up to a slash, and names that differ in case only",
    requirements=["TD-MAN-020", "TD-MAN-021"],
    chain=_more("config.json5", "config.json-x/y", "Config.json", "a/b", "a/c", "a/b-c", "x" * 200),
)
for _slug, _rule, _names, _title in (
    ("file-name-twice", "TD-MAN-020", ["config.json"], "Two files of one name"),
    ("file-name-is-a-folder", "TD-MAN-021", ["config.json/x"], "A file whose folder is another file"),
    ("file-name-is-a-folder-above", "TD-MAN-021", ["config.json/a/b"], "A file two levels below another file"),
    (
        "file-name-is-a-folder-before",
        "TD-MAN-021",
        ["a/b/c", "a/b-c", "a/b"],
        "A file that is the folder of an earlier one",
    ),
):
    reject(
        _slug,
        area=AREA,
        title=_title,
        requirements=[_rule],
        chain=_more(*_names),
        error="malformed",
        twin="file-names-that-are-no-prefixes",
    )


def _plain(name: Any, second: str | None = None) -> Callable[[], Builder]:
    """Version 1 takes one tensor from a plain pack of some name, and with `second` one more from another."""

    def more(builder: Builder, states: list[Any], layout: str) -> list[Any]:
        named = {} if name is None else {"name": name}
        packs = [of_plain({"b.bias": states[1]["b.bias"]}, states[1], fields=named)]
        if second is not None:
            packs.append(of_plain({"c.ids": states[1]["c.ids"]}, states[1], fields={"name": second}))
        return packs

    def plan(plans: list[dict[str, Any]]) -> None:
        del plans[1 : 2 if second is None else 3]

    return partial(standard, last=False, plan=plan, more=more)


read(
    "plain-names",
    area=AREA,
    title="A plain pack named beside a file",
    requirements=["TD-MAN-020", "TD-MAN-021"],
    chain=_plain("config.json.safetensors"),
)
read(
    "plain-names-of-two",
    area=AREA,
    title="Two plain packs with names in one folder",
    requirements=["TD-MAN-020"],
    chain=_plain("sub/b.safetensors", "sub/c.safetensors"),
)
read(
    "plain-without-a-name",
    area=AREA,
    title="A plain pack without a name",
    requirements=["TD-MAN-001"],
    chain=_plain(None),
)
_PLAIN: tuple[tuple[str, str, Any, str], ...] = (
    ("plain-name-up", "TD-PTH-001", "../b.safetensors", "The name of a plain pack goes up"),
    ("plain-name-a-number", "TD-JSN-012", 7, "The name of a plain pack is a number"),
    ("plain-name-201-characters", "TD-PTH-002", "x" * 201, "The name of a plain pack has 201 characters"),
    ("plain-name-of-a-file", "TD-MAN-020", "config.json", "A plain pack with the name of a file"),
    ("plain-name-below-a-file", "TD-MAN-021", "config.json/b", "A plain pack whose folder is a file"),
)
for _slug, _rule, _name, _title in _PLAIN:
    reject(
        _slug,
        area=AREA,
        title=_title,
        requirements=[_rule],
        chain=_plain(_name),
        error="malformed",
        twin="plain-names",
    )
for _slug, _rule, _two, _title in (
    ("plain-names-equal", "TD-MAN-020", ("b", "b"), "Two plain packs of one name"),
    ("plain-names-of-folders", "TD-MAN-021", ("b/c", "b"), "A plain pack with the name of another's folder"),
):
    reject(
        _slug,
        area=AREA,
        title=_title,
        requirements=[_rule],
        chain=_plain(*_two),
        error="malformed",
        twin="plain-names-of-two",
    )
read(
    "chunk-pack-names-mean-nothing",
    area=AREA,
    title="The name of a chunk pack is any string, even one that goes up or that a file has",
    requirements=["TD-MAN-001"],
    chain=partial(standard, last=False, entry=setting(name="../config.json")),
)
reject(
    "chunk-pack-name-a-number",
    area=AREA,
    title="The name of a chunk pack is a number, where any string would do",
    requirements=["TD-JSN-012"],
    chain=partial(standard, last=False, entry=setting(name=7)),
    error="malformed",
    twin="chunk-pack-names-mean-nothing",
)

# -- the objects -------------------------------------------------------------------------------------------------------


def _config(builder: Builder) -> str:
    path: str = builder.manifests[1]["files"][0]["path"]
    return path


def _object(slug: str, title: str, error: str, after: Callable[[Builder], Any], rule: str = "TD-MAN-022") -> None:
    """A fault of a file: a reader of states does not see it, a verifier does."""
    chain = partial(standard, last=False, after=after)
    reject(
        slug,
        area=AREA,
        title=title,
        requirements=[rule],
        chain=chain,
        error=error,
        twin="standard-of-two",
        role="verifier",
    )


_object("file-altered", "A file of the right length and other bytes", "integrity", lambda b: b.put(_config(b), b"[]"))
_object("file-longer", "A file with a space more", "integrity", lambda b: b.put(_config(b), b"{} "))
_object("file-missing", "A file whose object does not exist", "missing", lambda b: b.remove(_config(b)), "TD-ERR-002")
read(
    "file-missing-for-a-reader-of-states",
    area=AREA,
    title="A file whose object is gone is no fault of the state",
    requirements=["TD-TRM-001"],
    chain=partial(standard, last=False, after=lambda b: b.remove(_config(b))),
    verify=None,
)
read(
    "files-of-a-version",
    area=AREA,
    title="A manifest with an empty file, and with one that lies at a path of its own",
    requirements=["TD-PTH-005"],
    chain=chain_with_files,
)
