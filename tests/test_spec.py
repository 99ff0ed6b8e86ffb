"""SPEC.md against the code: its requirements, its examples, its worked chain, and what the code cites of it."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import slow_reader
from strategies import slow

import tensordelta as td
from tensordelta.codecs.words import DTYPES
from tensordelta.errors import ERRORS, TensorDeltaError
from tensordelta.format import manifest, pack, signature, strict_json
from tensordelta.format.documents import MAX_SMALL, parse_chain, parse_latest
from tensordelta.format.documents import parse_pin as parse_pin_document
from tensordelta.format.layout import Layout
from tensordelta.format.names import MAX_VERSION, parse_shortcut_name
from tensordelta.read.reader import Reader
from tensordelta.read.routes import Edge
from tensordelta.state.state import State
from tensordelta.stores import FolderStore

ROOT = Path(__file__).resolve().parent.parent
SPEC = (ROOT / "SPEC.md").read_text(encoding="utf-8")
MORE = (ROOT / "conformance" / "examples.md").read_text(encoding="utf-8")
CODE = sorted((ROOT / "reference" / "tensordelta").rglob("*.py"))


def script(name: str, path: str) -> ModuleType:
    """A program of the repository, as a module."""
    source = importlib.util.spec_from_file_location(name, ROOT / path)
    assert source is not None and source.loader is not None
    module = importlib.util.module_from_spec(source)
    sys.modules[name] = module  # its dataclasses look their module up
    source.loader.exec_module(module)
    return module


TOOL = script("requirements", "conformance/requirements.py")
schemas = script("schemas", "reference/schemas/__main__.py")


# -- requirements --------------------------------------------------------------------------------------------------


def test_the_requirements_have_their_form() -> None:
    assert TOOL.faults(SPEC) == []


def test_every_rule_that_the_code_names_is_a_requirement() -> None:
    known = {requirement.id for requirement in TOOL.extract(SPEC)}
    assert len(known) > 200
    named = {
        rule: path.name
        for path in CODE
        for rule in re.findall(r"TD-[A-Z]{3}-[0-9]{3}", path.read_text(encoding="utf-8"))
    }
    assert {rule: name for rule, name in named.items() if rule not in known} == {}


def test_every_id_in_the_text_is_a_requirement() -> None:
    known = {requirement.id for requirement in TOOL.extract(SPEC)}
    # `[TD-…]` in prose refers to a requirement, section 1.4 shows one.
    assert set(re.findall(r"TD-[A-Z]{3}-[0-9]{3}", SPEC)) == known


def test_the_errors_are_those_of_section_17() -> None:
    section = SPEC[SPEC.index("\n## 17 ") : SPEC.index("\n## 18 ")]
    assert set(re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE)) == set(ERRORS)
    for requirement in TOOL.extract(SPEC):
        cited = re.search(r"\(`([a-z-]+)`\)\.$", requirement.text)
        assert cited is None or cited[1] in ERRORS, requirement.id


def sections() -> set[str]:
    """The numbers of the headings, and the letters of the appendices."""
    numbered = re.findall(r"^#{2,3} ([0-9]+(?:\.[0-9]+)?) ", SPEC, re.MULTILINE)
    lettered = re.findall(r"^## Appendix ([A-Z]) |^### ([A-Z]\.[0-9]) ", SPEC, re.MULTILINE)
    return set(numbered) | {each for pair in lettered for each in pair if each}


_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_CITED = re.compile(rf"[Ss]ections? ({_NUMBER}(?:(?:, | and | or | to |, and )(?:section )?{_NUMBER})*)")


def cited(text: str) -> list[str]:
    flat = re.sub(r"\s+#?:?\s*", " ", text)
    # RFCs and other documents have sections of their own.
    flat = re.sub(rf"RFC [0-9]+,? sections? {_NUMBER}(?:\.[0-9]+)*", "", flat)
    found = [number for match in _CITED.finditer(flat) for number in re.findall(_NUMBER, match[1])]
    return found + re.findall(r"[Aa]ppendix ([A-Z](?:\.[0-9])?)", flat)


def docstrings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield ast.get_docstring(node) or ""


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.stem)
def test_sections_that_docstrings_cite_exist(path: Path) -> None:
    known = sections()
    assert [each for text in docstrings(path) for each in cited(text) if each not in known] == []


def test_sections_that_the_text_cites_exist() -> None:
    known = sections()
    assert len(known) > 60
    assert [each for each in cited(SPEC) if each not in known] == []


def test_sections_are_cited_for_what_they_are_about() -> None:
    """The documents and the codecs name the section that has their table."""
    titles = dict(re.findall(r"^#{2,3} ([0-9]+(?:\.[0-9]+)?) (.*)$", SPEC, re.MULTILINE))
    wanted = {
        "ijson": ["JSON"],
        "layout": ["Layout"],
        "manifest": ["Manifest", "Shortcut"],
        "fingerprint": ["Fingerprint"],
        "words": ["Data model"],
        "errors": ["Errors"],
        "container": ["The file"],
        "pack": ["Packs"],
        "compression": ["Compression"],
        "order": ["Order natural", "Order exponent"],
        "positions": ["Positions gap", "Positions all"],
        "values": ["Values step", "Values replace"],
    }
    for path in CODE:
        if path.stem in wanted and path.parent.name != "engines":
            first = cited(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "")
            found = [titles[each] for each in first]
            assert all(title in found for title in wanted[path.stem]), (path.stem, found)


# -- tables --------------------------------------------------------------------------------------------------------


def test_the_dtypes_are_those_of_section_3_2() -> None:
    section = SPEC[SPEC.index("### 3.2 ") : SPEC.index("### 3.3 ")]
    rows = re.findall(r"^\| ([A-Z0-9_, ]+) \| (\d+) \| (\d+) \| (\w+) \| (\d*) ?\| (\d*) ?\|$", section, re.MULTILINE)
    assert [name for row in rows for name in row[0].split(", ")] == list(DTYPES)
    for names, bits, w, mask, shift, width in rows:
        for kind in (DTYPES[name] for name in names.split(", ")):
            assert (kind.bits, kind.word_bits) == (int(bits), int(w))
            if mask == "none":
                assert kind.exponent is None
                continue
            assert kind.exponent == (int(shift), int(width))
            assert int(mask, 16) == ((1 << int(width)) - 1) << int(shift)


def test_the_limits_are_those_of_section_16() -> None:
    section = SPEC[SPEC.index("\n## 16 ") : SPEC.index("\n## 17 ")]
    from tensordelta.format import chunk, layout
    from tensordelta.format.safetensors import MAX_HEADER

    for line, value in [
        ("`chain.json`, `latest.json`, a pin, a signature object | 65,536 bytes", MAX_SMALL),
        ("manifest, shortcut | 67,108,864 bytes", manifest.MAX_MANIFEST),
        ("layout object | 268,435,456 bytes", layout.MAX_LAYOUT),
        ("nesting of JSON | 16", strict_json.MAX_DEPTH),
        ("header of a pack | 100,000,000 bytes", MAX_HEADER),
    ]:
        assert f"| {line}" in section
        assert int(line.split(" | ")[1].split()[0].replace(",", "")) == value
    for line, value in [
        ("pack, file | 2^40", manifest.MAX_PACK),
        ("packs of a manifest, together | 2^48", manifest.MAX_EDGE),
        ("words of a layout, together | 2^53", layout.MAX_STATE),
        ("packs of a manifest | 2^16", manifest.MAX_PACKS),
        ("ranges of a pack's `tensors` | 2^16", manifest.MAX_RANGES),
        ("tensors of a layout | 2^20", layout.MAX_TENSORS),
        ("a dimension; product of the dimensions that are not 0 | 2^48", layout.MAX_ELEMENTS),
        ("words of a chunk, n | 2^27", chunk.MAX_WORDS),
    ]:
        assert f"| {line}" in section
        assert 2 ** int(line.split("2^")[1]) == value
    assert chunk.MAX_GROUP == 2**24
    assert MAX_VERSION == 10**12 - 1
    assert strict_json.MAX_INTEGER == 2**53 - 1


# -- examples ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Example:
    kind: str
    error: str | None
    data: bytes
    place: str

    @property
    def valid(self) -> bool:
        return self.error is None


def examples(text: str, place: str) -> list[Example]:
    """The marked examples of a text, each with the text's name and its line."""
    pattern = re.compile(r"<!-- example: (\S+) (valid|invalid (\S+)) -->\n```json\n(.*?)\n```", re.DOTALL)
    found = [
        Example(match[1], match[3], match[4].encode(), f"{place}-{text.count(chr(10), 0, match.start()) + 1}")
        for match in pattern.finditer(text)
    ]
    assert len(found) == text.count("<!-- example:") == text.count("```json")
    return found


EXAMPLES = examples(SPEC, "spec") + examples(MORE, "more")


def edge_of(data: bytes) -> tuple[int, int | None]:
    """The version and base that a manifest's object would have in its name."""
    value = json.loads(data)
    base = value.get("base")
    return int(value["version"]), None if base is None else base["version"]


def parse_manifest(data: bytes) -> None:
    version, _ = edge_of(data)
    parsed = manifest.parse_manifest(data, version=version)
    manifest.check_features(parsed, object="example")


def parse_shortcut(data: bytes) -> None:
    version, base = edge_of(data)
    parsed = manifest.parse_manifest(data, version=version, base=base, tag=None)
    manifest.check_features(parsed, object="example")


def parse_layout(data: bytes) -> None:
    Layout.parse(data, sha256=hashlib.sha256(data).hexdigest())


def parse_table(data: bytes) -> None:
    pack.parse_table(data.decode(), layout=json.loads(data)["layout"], object="example")


def parse_signature(data: bytes) -> None:
    signature.parse_signature(data, object="example")


def parse_pin(data: bytes) -> None:
    parse_pin_document(data, object="example")


def parse_pin_slowly(data: bytes) -> None:
    """A pin has the fields of a hint, and one more."""
    slow_reader.parse_latest(data)
    seconds = json.loads(data).get("seconds", 0)
    if type(seconds) is not int or not 0 <= seconds < 2**53:
        raise slow_reader.Fault("malformed", "TD-RET-018", "seconds")


PARSERS: dict[str, tuple[Callable[[bytes], object], Callable[[bytes], object]]] = {
    "chain": (parse_chain, slow_reader.parse_chain),
    "latest": (parse_latest, slow_reader.parse_latest),
    "layout": (parse_layout, lambda data: slow_reader.parse_layout(data, hashlib.sha256(data).hexdigest())),
    "manifest": (parse_manifest, slow_reader.parse_manifest),
    "shortcut": (parse_shortcut, slow_reader.parse_manifest),
    "chunk-table": (
        parse_table,
        lambda data: slow_reader.parse_table(data.decode(), json.loads(data)["layout"]),
    ),
    "signature": (parse_signature, slow_reader.parse_signature),
    "pin": (parse_pin, parse_pin_slowly),
}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda each: f"{each.kind}-{each.place}")
def test_examples(example: Example) -> None:
    parse, slowly = PARSERS[example.kind]
    if example.valid:
        parse(example.data)
        slowly(example.data)
        return
    with pytest.raises(slow_reader.Fault) as other:
        slowly(example.data)
    assert other.value.name == example.error
    with pytest.raises(TensorDeltaError) as caught:
        parse(example.data)
    assert caught.value.name == example.error


def test_every_kind_has_an_example_of_both() -> None:
    for kind in PARSERS:
        assert {each.valid for each in EXAMPLES if each.kind == kind} == {True, False}


# -- contents and index --------------------------------------------------------------------------------------------


def test_the_contents_name_every_section_and_appendix() -> None:
    headings = re.findall(r"^#{2,3} (.+)$", SPEC, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-"): each for each in headings}
    links = re.findall(r"\[([^\]]+)\]\(#([^)]+)\)", SPEC[SPEC.index("## Contents") : SPEC.index("## 1 ")])
    for title, anchor in links:
        assert title in anchors[anchor]
    tops = {each for each in re.findall(r"^## (.+)$", SPEC, re.MULTILINE) if each != "Contents"}
    assert {anchors[anchor] for _, anchor in links} >= tops


def fields_of_tables() -> Iterator[tuple[str, str, str, str]]:
    """Field, object (a caption or the section's title names it), section and type of each row of a field table."""
    names = {"the file": "entry of a header", "the chunk table": "chunk table", "retention": "pin"}
    names["signatures"] = "signature"
    section = owner = ""
    inside = False
    for line in SPEC[: SPEC.index("## Appendix A")].splitlines():
        if heading := re.match(r"#{2,3} ([0-9.]+) (.*)", line):
            section, owner = heading[1], heading[2].lower()
        elif re.match(r"[A-Z][a-z ]+:$", line):
            owner = line[:-1].lower()
        if not line.startswith("|"):
            inside = False
        elif line.startswith("| field "):
            inside = True
        elif inside and not line.startswith("|-"):
            cells = line.split(" | ")
            yield cells[0].strip("| `"), names.get(owner, owner), section, cells[1]


def test_the_index_names_every_field() -> None:
    """The fields of the tables, and the members of codec objects, which have no table of that form."""
    index = SPEC[SPEC.index("### F.1 ") : SPEC.index("### F.2 ")]
    entries = re.findall(r"^\| `([a-z0-9_]+)` \| ([^|]+) \| ([0-9.]+) \| ([^|]+) \|$", index, re.MULTILINE)
    assert len(entries) == len(set(entries)) == index.count("\n| `")
    codecs = {entry for entry in entries if entry[1] == "codec object"}
    assert {entry[0] for entry in codecs} == {"codec", "limit", "groups", "shift"}
    for name, _, section, _ in codecs:
        assert f"`{name}`" in SPEC[SPEC.index(f"### {section} ") :].split("\n### ")[0]
    found = list(fields_of_tables())
    assert len(found) > 55
    assert sorted(set(entries) - codecs) == sorted(found)


def test_the_areas_are_those_of_the_ids() -> None:
    areas = set(re.findall(r"\| ([A-Z]{3}) (?=\|)", SPEC[SPEC.index("### F.2 ") :]))
    assert areas == {each.id[3:6] for each in TOOL.extract(SPEC)} == TOOL.AREAS


# -- schemas (appendix D) ------------------------------------------------------------------------------------------

SCHEMAS = ROOT / "reference" / "schemas"


def test_the_schema_files_are_what_the_types_make() -> None:
    made = {f"{name}.schema.json": schemas.text(schema) for name, schema in schemas.schemas().items()}
    assert {path.name: path.read_text(encoding="utf-8") for path in SCHEMAS.glob("*.json")} == made
    appendix = SPEC[SPEC.index("## Appendix D ") : SPEC.index("## Appendix E ")]
    assert set(re.findall(r"`([a-z-]+\.schema\.json)`", appendix)) == set(made)


def test_schemas_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert schemas.main([str(tmp_path / "new")]) == 0
    assert {path.name for path in (tmp_path / "new").iterdir()} == {path.name for path in SCHEMAS.glob("*.json")}
    assert schemas.main(["one", "two"]) == schemas.main(["--help"]) == 2
    assert "usage" in capsys.readouterr().err


#: What a schema can see of the invalid examples; the rest is order, sums and agreement.
BY_SHAPE = {
    "chain": [b"5F0C8A52", b'"grace": 59'],
    "latest": [b'"version": "42"'],
    "manifest": [],
    "chunk-table": [b'"shift": 5', b'"limit": 3}', b"elias-fano"],
}


def schema_errors(kind: str, data: bytes) -> list[str]:
    import jsonschema

    schema = schemas.schemas()["manifest" if kind == "shortcut" else kind]
    validator = jsonschema.Draft202012Validator
    validator.check_schema(schema)
    return [error.message for error in validator(schema).iter_errors(json.loads(data))]


@pytest.mark.parametrize(
    "example",
    [each for each in EXAMPLES if each.kind not in ("signature", "pin")],
    ids=lambda each: f"{each.kind}-{each.place}",
)
def test_examples_and_schemas(example: Example) -> None:
    errors = schema_errors(example.kind, example.data)
    if example.valid:
        assert errors == []
        return
    value = json.loads(example.data)
    by_shape = any(mark in example.data for mark in BY_SHAPE.get(example.kind, ()))
    absent = (example.kind == "manifest" and "base" not in value) or ("chain" not in value and example.kind == "chain")
    assert bool(errors) == (by_shape or absent)


@pytest.mark.parametrize("kind", sorted(schemas.schemas()))
def test_schemas_ask_for_every_required_field(kind: str) -> None:
    example = next(each for each in EXAMPLES if each.kind == kind and each.valid and b'"1.0-rc.1"' in each.data)
    value = json.loads(example.data)
    optional = {"annotations", "tensor_fingerprints", "files", "shortcuts"}
    for name in value.keys() - optional:
        assert schema_errors(kind, json.dumps({each: value[each] for each in value if each != name}).encode())
        assert schema_errors(kind, json.dumps({**value, name: {"neither": 1}}).encode()) or name == "base"
    assert schema_errors(kind, json.dumps({**value, "colour": [1.5, None]}).encode()) == []


# -- appendix A ----------------------------------------------------------------------------------------------------


def worked() -> dict[str, bytes]:
    folder = ROOT / "conformance" / "worked_example"
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_text_names_each_worked_object() -> None:
    """It shows the small ones in hex, and gives the sizes of the others."""
    pattern = re.compile(r"<!-- bytes: (\S+) -->\n```hex\n(.*?)\n```", re.DOTALL)
    shown = {match[1]: bytes.fromhex(match[2]) for match in pattern.finditer(SPEC)}
    assert len(shown) == SPEC.count("<!-- bytes:") == SPEC.count("```hex")
    sizes = dict(re.findall(r"The object is `(\S+)`, ([0-9,]+) bytes", SPEC))
    objects_ = worked()
    assert shown.keys() | sizes.keys() == objects_.keys() and not shown.keys() & sizes.keys()
    for name, data in objects_.items():
        assert shown[name] == data if name in shown else sizes[name] == f"{len(data):,}"


def words(text: str, count: int) -> list[int]:
    """The words that a cell of A.1 gives: all of them, or 0000 and the others by their numbers."""
    if not text.startswith(("all 0000", "0000, but")):
        return [int(word, 16) for word in text.split()]
    found = [0] * count
    for index, word in re.findall(r"word (\d+) = ([0-9A-F]+)", text):
        found[int(index)] = int(word, 16)
    return found


def worked_states() -> list[slow_reader.State]:
    """The states that the tables of A.1 give."""
    section = SPEC[SPEC.index("### A.1 ") : SPEC.index("### A.2 ")]
    rows = re.findall(r"^\| `(\S+)` \| (\S+) \| \[([0-9, ]*)\] \| (.+) \|$", section, re.MULTILINE)
    states: list[slow_reader.State] = [{}, {}, {}]
    for name, dtype, sizes, cells in rows:
        shape = tuple(int(size) for size in sizes.split(",") if size)
        columns = cells.split(" | ")
        for version, text in enumerate(columns) if len(columns) == 2 else [(2, cells)]:
            if text != "(not there)":
                count = slow_reader.word_count(dtype, shape)
                states[version][name] = slow_reader.Tensor(dtype, shape, words(text, count))
    assert [len(state) for state in states] == [3, 4, 4]
    return states


def worked_pack(manifest: str) -> bytes:
    """The first pack of a manifest or shortcut."""
    return worked()[json.loads(worked()[manifest])["packs"][0]["path"]]


@pytest.fixture
def worked_chain(tmp_path: Path) -> Path:
    for name, data in worked().items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    return tmp_path


def test_worked_objects_have_the_digests_of_their_names() -> None:
    digests = 0
    for name, data in worked().items():
        match = re.search(r"/([0-9a-f]{64})(\.|-|$)", name)
        if match:
            assert hashlib.sha256(data).hexdigest() == match[1]
            digests += 1
    assert digests == 13


def test_worked_chain(worked_chain: Path) -> None:
    chain = td.open(worked_chain)
    assert chain.versions() == [0, 1, 2]
    assert chain.verify(deep=True).faults == []
    for version, state in enumerate(worked_states()):
        loaded = chain.load(version)
        assert slow(loaded) == state
        assert slow_reader.read_version(slow_reader.objects_of(worked_chain), version) == state
        assert loaded.fingerprint() == chain.manifest(version).fingerprint == slow_reader.state_fingerprint(state)


def test_worked_shortcuts(worked_chain: Path) -> None:
    """Both end at version 2, whichever reader takes them."""
    found = slow_reader.objects_of(worked_chain)
    states = worked_states()
    names = [name for name in found if name.startswith("shortcuts/")]
    assert len(names) == 2
    for name in names:
        assert slow_reader.apply_edge(found, name, states[1]) == states[2]
    reader = Reader(FolderStore(worked_chain))
    for name in names:
        shortcut = parse_shortcut_name(name)
        assert shortcut is not None
        state = State.empty() if shortcut.base is None else reader.load(shortcut.base)
        reader.prepare_edge(state, Edge(name, reader.documents.shortcut(shortcut))).apply()
        assert slow(state) == states[2]


@pytest.mark.parametrize("held", [None, 0, 1])
@pytest.mark.parametrize("gone", [None, "chunks", "plain"])
def test_worked_routes(worked_chain: Path, held: int | None, gone: str | None) -> None:
    """The second table of A.7, but for features that are not known."""
    if gone is not None:
        entries = json.loads(worked()["manifests/000000000002.json"])["packs"]
        (worked_chain / entries[("chunks", "plain").index(gone)]["path"]).unlink()
    chain = td.open(worked_chain)
    state = State.empty() if held is None else chain.load(held)
    update = chain.prepare(state, 2)
    by_version_1 = {None: "manifests/000000000002.json", "chunks": "shortcuts/000000000002-000000000001.nat.json"}
    route = (
        by_version_1.get(gone, "shortcuts/000000000002-full.json") if held == 1 else "shortcuts/000000000002-full.json"
    )
    assert update.route == (route,)
    update.apply()
    assert slow(state) == worked_states()[2]


def test_worked_route_without_the_feature(worked_chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = td.open(worked_chain).load(1)
    monkeypatch.setattr(manifest, "FEATURES", frozenset())
    update = td.open(worked_chain).prepare(state, 2)
    assert update.route == ("shortcuts/000000000002-000000000001.nat.json",)
    update.apply()
    assert slow(state) == worked_states()[2]


def test_worked_costs() -> None:
    """The first table of A.7."""
    rows = re.findall(r"^\| `(\S+\.json)` \| .* \| (\d+) \|$", SPEC[SPEC.index("### A.7") :], re.MULTILINE)
    assert len(rows) == 5
    for name, cost in rows:
        assert sum(entry["size"] for entry in json.loads(worked()[name])["packs"]) == int(cost)


def test_worked_update_in_place(worked_chain: Path) -> None:
    chain = td.open(worked_chain)
    state = chain.load(0)
    chain.prepare(state, 1).apply()
    assert slow(state) == worked_states()[1]
    assert state["scale"].shape == ()
    assert state["scale"] == np.float32(1)


def test_worked_fingerprints() -> None:
    """The tables of tensor fingerprints in A.1."""
    section = SPEC[SPEC.index("### A.1 ") : SPEC.index("### A.2 ")]
    states = worked_states()
    rows = re.findall(r"^\| (`\S+`|the state) \|((?: +`[0-9a-f]{16}` \|| +\|)+)$", section, re.MULTILINE)
    seen = 0
    for label, cells in rows:
        columns = [cell.strip(" `") for cell in cells.split("|")[:-1]]
        for version, text in enumerate(columns) if len(columns) == 2 else [(2, columns[0])]:
            name = label.strip("`")
            if label == "the state":
                assert slow_reader.state_fingerprint(states[version]) == text
            elif text:
                tensor = states[version][name]
                w = slow_reader.DTYPES[tensor.dtype].w
                assert f"{slow_reader.tensor_fingerprint(name, tensor.words, w):016x}" == text
            else:
                assert name not in states[version]
            seen += 1
    assert seen == 2 * 5 + 5


def test_worked_examples_are_the_bytes() -> None:
    """The JSON shown in appendix A is that of the objects."""
    objects_ = worked()
    shown = {each.data for each in examples(SPEC[SPEC.index("## Appendix A") :], "appendix")}
    for name, data in objects_.items():
        if name.startswith(("layouts/", "manifests/", "shortcuts/")):
            assert data in shown
            shown.discard(data)
        if name.startswith("packs/"):
            length = int.from_bytes(data[:8], "little")
            table = json.loads(data[8 : 8 + length])["__metadata__"].get("tensordelta")
            if table is not None:
                assert table.encode() in shown
                shown.discard(table.encode())
    assert shown == set()


def test_worked_frames() -> None:
    """The table of streams of version 0."""
    rows = re.findall(
        r"^\| `(\d\.values\.\d)` \| \[(\d+), (\d+)\) \| ([0-9A-F ]+) \| ([0-9A-F ]+) \|$", SPEC, re.MULTILINE
    )
    assert len(rows) == 6
    data = worked_pack("manifests/000000000000.json")
    start = 8 + int.from_bytes(data[:8], "little")
    for _, begin, end, stored, stream in rows:
        frame = data[start + int(begin) : start + int(end)]
        assert frame == bytes.fromhex(stored)
        content = bytes.fromhex(stream)
        assert slow_reader.check_frame(frame, len(content), len(content)) == len(content)
        assert slow_reader.zstd.decompress(frame) == content


def test_the_worked_frame_of_320_bytes() -> None:
    """What A.6 says of the stream `2.values.0`."""
    data = worked_pack("shortcuts/000000000002-full.json")
    start = 8 + int.from_bytes(data[:8], "little")
    begin, end = json.loads(data[8:start])["2.values.0"]["data_offsets"]
    frame = data[start + begin : start + end]
    assert frame[:10] == bytes.fromhex("28 B5 2F FD 64 40 00 F5 00 00")
    assert len(frame) == 44
    assert slow_reader.check_frame(frame, 320, 320) == 320
    content = slow_reader.zstd.decompress(frame)
    assert {index: byte for index, byte in enumerate(content) if byte} == {3: 0xD0, 290: 4, 300: 1, 309: 0xFF}


def test_the_signature_is_of_the_worked_chain() -> None:
    import base64

    from cryptography.hazmat.primitives.asymmetric import ed25519

    key = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    name, data = "chain.json", worked()["chain.json"]
    message = b"tensordelta:" + name.encode() + b"\n" + data
    assert f"keyid `{hashlib.sha256(key).hexdigest()[:16]}`" in SPEC and hashlib.sha256(message).hexdigest() in SPEC
    document: Any = json.loads(next(each.data for each in EXAMPLES if each.kind == "signature" and each.valid))
    public = ed25519.Ed25519PublicKey.from_public_bytes(key)
    public.verify(base64.b64decode(document["sig"], validate=True), message)


def test_worked_values() -> None:
    """The last table of A.8."""
    section = SPEC[SPEC.index("### A.8 ") : SPEC.index("## Appendix B ")]
    rows = re.findall(
        r"^\| (\d) \| ([0-9A-F]{8}) \| ([0-9A-F]{8}) \| .* \| `([0-9a-f]{16})` \| `([0-9a-f]{16})` \|$",
        section,
        re.MULTILINE,
    )
    assert len(rows) == 3
    for j, old, new, value, change in rows:
        before, after = (slow_reader.value("w", int(j), int(word, 16), 32) for word in (old, new))
        assert f"{after:016x}" == value
        assert f"{(after - before) % 2**64:016x}" == change


def holders_of(shares: list[dict[str, range]], name: str, word: int) -> list[int]:
    return [rank for rank, share in enumerate(shares) if word in share.get(name, ())]


def test_worked_sums_of_holders() -> None:
    """A.9, by section 9.5, from the listed words of A.4."""
    delta = SPEC[SPEC.index("### A.4 ") : SPEC.index("### A.5 ")]
    section = SPEC[SPEC.index("### A.9 ") : SPEC.index("## Appendix B ")]
    shares = [
        {"head.bias": range(5), "lora_B.weight": range(160), "norm.weight": range(4)},
        {"lora_B.weight": range(160, 320), "norm.weight": range(4), "scale": range(1)},
    ]
    manifest = json.loads(worked()["manifests/000000000001.json"])
    plan = hashlib.sha256(f"manifests/000000000001.json{manifest['packs'][0]['sha256']}".encode()).digest()[:8]
    sums = [[1, 1, int.from_bytes(plan, "little"), 0, 0, 0, 0] for _ in shares]
    changed = [int(each) for each in re.findall(r'"changed":(\d+),"order"', delta)]
    results = [int(each, 16) for each in re.findall(r'"result":"([0-9a-f]{16})"', delta)]
    listed = re.findall(r"^\| \d+ \| `(\S+)` (\d+) \| ([0-9A-F]+) \| .* \| ([0-9A-F]+) \|$", delta, re.MULTILINE)
    assert len(listed) == sum(changed) == 8
    for name, word, base, new in listed:
        w = 4 * len(base)
        before, after = (slow_reader.value(name, int(word), int(each, 16), w) for each in (base, new))
        owner, *others = holders_of(shares, name, int(word))
        for column, each in zip((3, 4, 5, 6), (1, after, after - before, len(others) * after), strict=True):
            sums[owner][column] += each
        for rank in others:
            sums[rank][6] -= after
    sums[0][3] -= sum(changed)
    sums[0][4] -= sum(results)
    rows = re.findall(r"^\| t\d \| .* \| `(\w{16})` \| `(\w{16})` \| `(\w{16})` \|$", section, re.MULTILINE)
    totals = [sum(column) % 2**64 for column in zip(*sums, strict=True)]
    columns = zip(*sums, totals, strict=True)
    assert rows == [tuple(f"{each % 2**64:016x}" for each in column) for column in columns]
    assert (totals[3], totals[4], totals[6]) == (0, 0, 0)
    states = worked_states()
    before, after = (int(slow_reader.state_fingerprint(state), 16) for state in states[:2])
    assert (before + totals[5]) % 2**64 == after
    other = slow_reader.value("norm.weight", 2, 0x3F7E, 16) - slow_reader.value("norm.weight", 2, 0x3F7D, 16)
    assert f"`{other % 2**64:016x}`: `wrong-base`" in section


def test_worked_files(worked_chain: Path, tmp_path: Path) -> None:
    """Version 2 pulled: its file and its plain pack lie there under their names."""
    folder = tmp_path / "checkout"
    td.open(worked_chain).pull(folder, 2)
    assert json.loads((folder / "config.json").read_bytes()) == {"model_type": "tiny"}
    assert (folder / "gate.safetensors").exists()
