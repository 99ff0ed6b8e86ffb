"""File entries, and names that files and plain packs share (SPEC.md section 4.9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from generate.builder import Builder, of_plain
from generate.chains.contents import files as chain_with_files
from generate.edits import Area, members_of
from generate.standard import setting, standard

case = Area("files")

# -- entries -----------------------------------------------------------------------------------------------------------

entry = Area("files", members_of("manifest", lambda document: document["files"][0]))
for member in ("name", "size", "sha256", "path"):
    entry(f"file-without-{member}", "JSN-011", f"A file entry without `{member}`").bad(drop=member)
TYPES: tuple[tuple[str, Any, str], ...] = (
    ("name", 7, "a number"),
    ("size", "2", "a string"),
    ("sha256", None, "null"),
    ("path", None, "null"),
)
for member, value, what in TYPES:
    entry(f"file-{member}-of-another-type", "JSN-012", f"A file entry whose `{member}` is {what}").bad(
        **{member: value}
    )
entry("file-size-2-40-and-one", "LIM-004", "A file of 2^40 + 1 bytes").bad("limit", size=2**40 + 1)
entry("file-path-in-packs", "PTH-004", "The path of a file begins with packs/").bad(path="packs/x")
entry("file-path-up", "PTH-001", "The path of a file goes up from files/").bad(path="files/../x")
entry("file-path-201-characters", "PTH-002", "The path of a file has 201 characters").bad(path="files/" + "x" * 195)
for slug, name, what in (
    ("up", "../config.json", "goes up"),
    ("up-inside", "a/../config.json", "goes up inside"),
    ("absolute", "/config.json", "is absolute"),
    ("backslash", "a\\b", "has a backslash"),
    ("hidden", ".config", "begins with a dot"),
    ("hidden-folder", "a/.b/c", "has a folder that begins with a dot"),
    ("empty", "", "is empty"),
    ("drive", "C:config.json", "has a colon"),
    ("newline", "config.json\n", "ends with a line feed"),
    ("of-an-option", "-rf", "begins with a hyphen"),
    ("of-an-option-in-a-folder", "a/-b", "has a segment that begins with a hyphen"),
    ("with-a-dot-last", "a.", "ends with a dot"),
    ("with-a-dot-last-in-a-folder", "a./b", "has a folder that ends with a dot"),
    ("of-a-device", "CON", "is that of a device"),
    ("of-a-device-in-lower-case", "nul", "is that of a device, in lower case"),
    ("of-a-device-with-an-end", "Aux.tar.gz", "is that of a device before a dot"),
    ("of-a-device-as-a-folder", "x/com1/y", "has a folder that is named as a device"),
):
    entry(f"file-name-{slug}", "PTH-001", f"The name of a file {what}").bad(name=name)
for slug, name in (("almost-of-a-device", "console"), ("of-no-device", "COM0"), ("ending-like-a-device", "x.con")):
    entry(f"file-name-{slug}", "PTH-005", f"A file named {name}").good(name=name)
entry("file-name-201-characters", "PTH-002", "The name of a file has 201 characters").bad(name="x" * 201)

# -- names together ----------------------------------------------------------------------------------------------------


def more_files(*names: str) -> Callable[[dict[str, Any]], None]:
    """Adds files to the manifest, all of the same content."""
    return lambda document: document["files"].extend({**document["files"][0], "name": name} for name in names)


together = Area("files", twin="file-names-that-are-no-prefixes")
together(
    "file-names-that-are-no-prefixes",
    "MAN-020 MAN-021",
    "Names that are the beginning of others, but not up to a slash, and names that differ in case only",
).good(manifest=more_files("config.json5", "config.json-x/y", "Config.json", "a/b", "a/c", "a/b-c", "x" * 200))
together("file-name-twice", "MAN-020", "Two files of one name").bad(manifest=more_files("config.json"))
for slug, title, names in (
    ("file-name-is-a-folder", "A file whose folder is another file", ["config.json/x"]),
    ("file-name-is-a-folder-above", "A file two levels below another file", ["config.json/a/b"]),
    ("file-name-is-a-folder-before", "A file that is the folder of an earlier one", ["a/b/c", "a/b-c", "a/b"]),
):
    together(slug, "MAN-021", title).bad(manifest=more_files(*names))


def with_plain(name: Any = None, second: str | None = None) -> Builder:
    """Version 1 takes a tensor from a plain pack called `name`, and another from one called `second` if given."""

    def more(builder: Builder, states: list[Any], layout: str) -> list[Any]:
        named = {} if name is None else {"name": name}
        packs = [of_plain({"b.bias": states[1]["b.bias"]}, states[1], fields=named)]
        if second is not None:
            packs.append(of_plain({"c.ids": states[1]["c.ids"]}, states[1], fields={"name": second}))
        return packs

    def plan(plans: list[dict[str, Any]]) -> None:
        del plans[1 : 2 if second is None else 3]

    return standard(last=False, plan=plan, more=more)


plain = Area("files", with_plain, "plain-names")
plain("plain-names", "MAN-020 MAN-021", "A plain pack named beside a file").good(name="config.json.safetensors")
plain("plain-without-a-name", "MAN-001", "A plain pack without a name").good()
PLAIN: tuple[tuple[str, str, Any, str], ...] = (
    ("plain-name-up", "PTH-001", "../b.safetensors", "The name of a plain pack goes up"),
    ("plain-name-a-number", "JSN-012", 7, "The name of a plain pack is a number"),
    ("plain-name-201-characters", "PTH-002", "x" * 201, "The name of a plain pack has 201 characters"),
    ("plain-name-of-a-file", "MAN-020", "config.json", "A plain pack with the name of a file"),
    ("plain-name-below-a-file", "MAN-021", "config.json/b", "A plain pack whose folder is a file"),
)
for slug, rule, name, title in PLAIN:
    plain(slug, rule, title).bad(name=name)
two = Area("files", with_plain, "plain-names-of-two")
two("plain-names-of-two", "MAN-020", "Two plain packs with names in one folder").good(
    name="sub/b.safetensors", second="sub/c.safetensors"
)
two("plain-names-equal", "MAN-020", "Two plain packs of one name").bad(name="b", second="b")
two("plain-names-of-folders", "MAN-021", "A plain pack with the name of another's folder").bad(name="b/c", second="b")
case(
    "chunk-pack-names-mean-nothing",
    "MAN-001",
    "The name of a chunk pack is any string, even one that goes up or that a file has",
).good(entry=setting(name="../config.json"))
case("chunk-pack-name-a-number", "JSN-012", "The name of a chunk pack is a number, where any string would do").bad(
    twin="chunk-pack-names-mean-nothing", entry=setting(name=7)
)

# -- the objects of files: only a verifier has to read them ------------------------------------------------------------


def config(builder: Builder) -> str:
    path: str = builder.manifests[1]["files"][0]["path"]
    return path


case("file-altered", "MAN-022", "A file of the right length and other bytes").bad(
    "integrity", role="verifier", after=lambda builder: builder.put(config(builder), b"[]")
)
case("file-longer", "MAN-022", "A file with a space more").bad(
    "integrity", role="verifier", after=lambda builder: builder.put(config(builder), b"{} ")
)
case("file-missing", "ERR-002", "A file whose object does not exist").bad(
    "missing", role="verifier", after=lambda builder: builder.remove(config(builder))
)
case("file-missing-for-a-reader-of-states", "TRM-001", "A file whose object is gone is no fault of the state").good(
    verify=None, after=lambda builder: builder.remove(config(builder))
)
case(
    "files-of-a-version", "PTH-005", "A manifest with an empty file, and with one that lies at a path of its own"
).good(chain=chain_with_files)
