"""Chains, layouts, manifests, shortcuts, hints and signatures (SPEC.md sections 4, 13 and 14)."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from .table import Census

DTYPES = (
    "F64 C64 I64 U64 F32 I32 U32 BF16 F16 I16 U16 F8_E4M3 F8_E4M3FNUZ F8_E5M2 F8_E5M2FNUZ F8_E8M0 I8 U8 BOOL F4"
    " F6_E2M3 F6_E3M2"
).split()
LARGEST = 2**53 - 1


class Documents:
    """Notes the values of known fields."""

    def __init__(self, census: Census) -> None:
        self.uuid = {
            "version": census.kind("chain ids whose version is not 4"),
            "variant": census.kind("chain ids whose variant is not 8, 9, a or b"),
        }
        self.fraction = census.kind("times: digits of the fraction", needs=range(10))
        self.year = {name: census.kind(f"times: years {name}") for name in ("before 1970", "of 2038 and later")}
        self.second = census.kind("times: second 60")
        self.day = census.kind("times: days that no calendar has")
        self.time = census.kind("times: the first and the last of a day", needs=("00:00:00", "23:59:59"))
        self.grace = census.kind("grace: seconds", needs=("absent", 60, 2**32))
        self.annotations = {
            "number": census.kind("annotations: how many, in", needs=("absent", 0, 1, 64)),
            "key": census.kind("annotations: keys that are empty or not ASCII"),
            "value": census.kind("annotations: values that are empty or not ASCII"),
            "size": census.kind("annotations: of 4096 bytes"),
        }
        self.version = {
            "zero": census.kind("versions: the first of a chain is not 0"),
            "great": census.kind("versions beyond 2^32", needs=(10**12 - 1,)),
            "gap": census.kind("versions: gaps between two of a chain"),
            "back": census.kind("versions: how far back a base is"),
            "full": census.kind("versions other than the first that are full"),
        }
        self.time_goes_back = census.kind("times: a version created before its base")
        self.tensors = census.kind("layouts: numbers of tensors", needs=(0, 1))
        self.dtypes = {dtype: census.kind(f"tensors of dtype {dtype}: shapes") for dtype in DTYPES}
        self.shape = {
            "rank": census.kind("shapes: numbers of dimensions", needs=range(17)),
            "scalar": census.kind("shapes: none of dimensions, of dtypes"),
            "zero": census.kind("shapes with a dimension 0"),
            "vast": census.kind("shapes with a dimension 0 and one beyond 2^32"),
            "one": census.kind("shapes with dimensions 1 beside others"),
        }
        self.script = census.kind("tensor names: scripts other than Latin")
        self.name = {
            "long": census.kind("tensor names of 1024 bytes"),
            "short": census.kind("tensor names of one byte"),
            "control": census.kind("tensor names with control characters"),
            "space": census.kind("tensor names with spaces"),
            "slash": census.kind("tensor names with slashes, backslashes or quotes"),
            "dots": census.kind("tensor names that begin or end with a dot"),
            "normal": census.kind("tensor names that are not in normal form C"),
            "order": census.kind("layouts in an order other than that of UTF-16"),
            "prefix": census.kind("tensor names that are the beginning of another"),
        }
        self.same_layout = census.kind("layouts equal to another of their chain, in other bytes")
        self.base_layout = census.kind("deltas between layouts of unlike bytes")
        self.fingerprint = census.kind("fingerprints that begin with 0")
        self.tensor_fingerprints = census.kind("tensor_fingerprints", needs=("absent", "present"))
        self.features = census.kind("features", needs=("", "exponent-order"))
        self.unused = census.kind("features listed and not used, in chains")
        self.repeated = census.kind("features listed several times: how often", 1)
        self.packs = census.kind("packs of a manifest: how many", needs=(0, 1))
        self.pack = {
            "path": census.kind("paths of packs other than packs/{digest}-{salt}.safetensors"),
            "digest": census.kind("paths of packs without the digest"),
            "long": census.kind("paths of 200 characters"),
            "salt": census.kind("salts that begin with 0"),
            "null": census.kind("sources of packs whose path is null"),
            "sources": census.kind("sources beside a path"),
            "no sources": census.kind("sources: an empty array, in chains", 1),
            "tensors": census.kind("ranges of `tensors`: how many"),
            "more": census.kind("ranges of `tensors` that hold more than the pack names"),
            "name of chunks": census.kind("name of a chunk pack"),
            "name of tensors": census.kind("name of a plain pack"),
            "no name": census.kind("plain packs without a name, in"),
        }
        self.files = {
            "number": census.kind("files: how many", needs=("absent", 0, 1, 2)),
            "size": census.kind("files: sizes", needs=(0,)),
            "folder": census.kind("files in folders"),
            "path": census.kind("paths of files other than files/{digest}-{salt}"),
            "shared": census.kind("files of one path under two names"),
            "odd": census.kind("names of files with capitals, underscores or several dots"),
        }
        self.shortcut = {
            "tag": census.kind("shortcuts: tags"),
            "one tag": census.kind("shortcuts: lengths of tags", needs=(1, 16)),
            "full": census.kind("shortcuts from nothing, to"),
            "skip": census.kind("shortcuts: from and to"),
            "same": census.kind("shortcuts along a version's own edge"),
            "other": census.kind("shortcuts with files or annotations of their own"),
        }
        self.hint = {
            "number": census.kind("hints: how many shortcuts", needs=("absent", 0, 64)),
            "full": census.kind("hints of full shortcuts"),
            "tag": census.kind("hints of shortcuts with a tag"),
        }
        self.signatures = census.kind("signatures of one object: keys", needs=(1, 2))

    # -- types of fields ----------------------------------------------------------------------------------------------

    def _time(self, text: str, case: str) -> None:
        second, _, fraction = text[:-1].partition(".")
        self.fraction.note(len(fraction), case)
        year, month, day = int(text[:4]), text[5:7], text[8:10]
        if year < 1970:
            self.year["before 1970"].note(year, case)
        if year >= 2038:
            self.year["of 2038 and later"].note(year, case)
        if text[17:19] == "60":
            self.second.note(text, case)
        short = {"02": 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28}
        if int(day) > short.get(month, 30 if month in ("04", "06", "09", "11") else 31):
            self.day.note(text[:10], case)
        self.time.note(second[11:], case)

    def _annotations(self, document: Mapping[str, Any], case: str) -> None:
        found = document.get("annotations")
        self.annotations["number"].note("absent" if found is None else len(found), case)
        for key, value in (found or {}).items():
            for name, text in (("key", key), ("value", value)):
                if not text or not text.isascii():
                    self.annotations[name].note(text, case)
            if len((key + value).encode()) == 4096:
                self.annotations["size"].note(len(key), case)

    # -- objects ------------------------------------------------------------------------------------------------------

    def chain(self, document: Mapping[str, Any], case: str) -> None:
        """`chain.json`."""
        text = document["chain"]
        if text[14] != "4":
            self.uuid["version"].note(text, case)
        if text[19] not in "89ab":
            self.uuid["variant"].note(text, case)
        self._time(document["created"], case)
        self.grace.note(document.get("grace", "absent"), case)
        self._annotations(document, case)

    def layout(self, document: Mapping[str, Any], case: str) -> None:
        """A layout."""
        names = [entry["name"] for entry in document["tensors"]]
        self.tensors.note(len(names), case)
        if names != sorted(names, key=lambda name: name.encode("utf-16-be")):
            self.name["order"].note(" ".join(names), case)
        for name, after in pairwise(names):
            if after.startswith(name):
                self.name["prefix"].note(name, case)
        for entry in document["tensors"]:
            self._name(entry["name"], case)
            self._shape(entry["dtype"], [int(each) for each in entry["shape"]], case)

    def _name(self, name: str, case: str) -> None:
        if len(name.encode()) == 1024:
            self.name["long"].note(name, case)
        if len(name.encode()) == 1:
            self.name["short"].note(name, case)
        for kind, characters in (("space", " "), ("slash", "/\\\"'")):
            if any(each in name for each in characters):
                self.name[kind].note(name, case)
        if any(unicodedata.category(each) == "Cc" for each in name):
            self.name["control"].note(name, case)
        if name[0] == "." or name[-1] == ".":
            self.name["dots"].note(name, case)
        if unicodedata.normalize("NFC", name) != name:
            self.name["normal"].note(name, case)
        for each in name:
            if not each.isascii() and each.isalpha():
                script = unicodedata.name(each, "?").split()[0]
                if script != "LATIN":
                    self.script.note(script, case)

    def _shape(self, dtype: str, shape: list[int], case: str) -> None:
        self.dtypes[dtype].note(shape, case)
        self.shape["rank"].note(len(shape), case)
        if not shape:
            self.shape["scalar"].note(dtype, case)
        if 0 in shape:
            self.shape["zero"].note(shape, case)
            if max(shape) > 2**32:
                self.shape["vast"].note(shape, case)
        if 1 in shape and len(set(shape)) > 1:
            self.shape["one"].note(shape, case)

    def chain_of(self, layouts: Mapping[str, Any], manifests: Mapping[int, Any], case: str) -> None:
        """All layouts of a chain, by digest, and all manifests."""
        lists: dict[str, str] = {}
        for digest, document in layouts.items():
            key = str([(each["name"], each["dtype"], each["shape"]) for each in document["tensors"]])
            if key in lists:
                self.same_layout.note(digest, case)
            lists[key] = digest
        order = sorted(manifests)
        if order and order[0] > 0:
            self.version["zero"].note(order[0], case)
        for before, after in pairwise(order):
            if after - before > 1:
                self.version["gap"].note(after - before, case)
        for version, document in manifests.items():
            base = document["base"]
            if version > order[0] and base is None:
                self.version["full"].note(version, case)
            if base is not None and int(base["version"]) in manifests:
                self.version["back"].note(version - int(base["version"]), case)
                if document["created"] < manifests[int(base["version"])]["created"]:
                    self.time_goes_back.note(document["created"], case)

    def edge(self, document: Mapping[str, Any], case: str) -> None:
        """A manifest or a shortcut."""
        version, base = int(document["version"]), document["base"]
        if version > 2**32:
            self.version["great"].note(version, case)
        self._time(document["created"], case)
        self._annotations(document, case)
        if document["fingerprint"].startswith("0"):
            self.fingerprint.note(document["fingerprint"], case)
        self.tensor_fingerprints.note("present" if "tensor_fingerprints" in document else "absent", case)
        self.features.note(" ".join(document["features"]), case)
        if len(document["features"]) > len(set(document["features"])):
            self.repeated.note(len(document["features"]), case)
        self.packs.note(len(document["packs"]), case)
        if base is not None and base["layout"] != document["layout"]:
            self.base_layout.note(document["layout"], case)
        for entry in document["packs"]:
            self._pack(entry, case)
        files = document.get("files")
        self.files["number"].note("absent" if files is None else len(files), case)
        for entry in files or ():
            self._file(entry, case)
        if len({entry["path"] for entry in files or ()}) < len(files or ()):
            self.files["shared"].note(len(files or ()), case)

    def _pack(self, entry: Mapping[str, Any], case: str) -> None:
        path, sources = entry["path"], entry.get("sources")
        digest = entry["sha256"]
        if path is None:
            self.pack["null"].note(sources, case)
        else:
            usual = path.startswith(f"packs/{digest}-") and path.endswith(".safetensors") and len(path) == 99
            if not usual:
                self.pack["path"].note(path, case)
            elif path[71] == "0":
                self.pack["salt"].note(path[71:87], case)
            if digest not in path:
                self.pack["digest"].note(path, case)
            if len(path) == 200:
                self.pack["long"].note(path, case)
            if sources:
                self.pack["sources"].note(sources, case)
        if sources == []:
            self.pack["no sources"].note(case, case)
        self.pack["tensors"].note(len(entry["tensors"]), case)
        if "name" in entry:
            self.pack[f"name of {entry['content']}"].note(entry["name"], case)
        elif entry["content"] == "tensors":
            self.pack["no name"].note(case, case)

    def _file(self, entry: Mapping[str, Any], case: str) -> None:
        name, path = entry["name"], entry["path"]
        self.files["size"].note(entry["size"], case)
        if "/" in name:
            self.files["folder"].note(name, case)
        if name != name.lower() or "_" in name or name.count(".") > 1:
            self.files["odd"].note(name, case)
        if not path.startswith(f"files/{entry['sha256']}-"):
            self.files["path"].note(path, case)
        if len(path) == 200:
            self.pack["long"].note(path, case)

    def shortcut_of(self, name: str, document: Mapping[str, Any], own: Mapping[str, Any] | None, case: str) -> None:
        """A shortcut under its name, and the manifest of its version."""
        _, _, tag = name.removesuffix(".json").partition(".")
        start = None if document["base"] is None else document["base"]["version"]
        if tag:
            self.shortcut["tag"].note(tag, case)
            self.shortcut["one tag"].note(len(tag), case)
        if start is None:
            self.shortcut["full"].note(document["version"], case)
        else:
            self.shortcut["skip"].note(f"{start} {document['version']}", case)
        if own is not None and own["base"] == document["base"]:
            self.shortcut["same"].note(name, case)
        if "annotations" in document or "files" in document:
            self.shortcut["other"].note(name, case)

    def hint_of(self, document: Mapping[str, Any], case: str) -> None:
        """A hint that counts."""
        names = document.get("shortcuts")
        self.hint["number"].note("absent" if names is None else len(names), case)
        for name in names or ():
            if "full" in name:
                self.hint["full"].note(name, case)
            if "." in name:
                self.hint["tag"].note(name, case)
