"""The judge of writers: a good chain breaks nothing, and each requirement of Writers is missed where it is broken."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import pkgutil
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from generate import areas, cases
from generate.builder import Builder, digest, manifest_name, of_plain, safetensors, shortcut_name
from generate.cases import state_file
from generate.chains import contents, encodings, paths
from generate.codecs import delta_chunks
from generate.ed25519 import sign
from generate.frames import frame
from generate.good import GOOD, Good
from generate.model import CHAIN, FOREIGN, Model, Random, small, stepped, tensor
from generate.pair import Part, made, moved, one, pair
from generate.scenes import line, little, move, walk
from generate.standard import exponent, flipped, replaced, setting, standard
from tensordelta_conformance.judge import PROTOCOL, Fault, Snapshot, Tensor, Violation, ed25519, judge, read_version
from tensordelta_conformance.judge.container import read_tensors

assert contents and encodings and paths  # their good chains are registered by now

#: Chains that a reader accepts and that a writer of this version may not write, and what it breaks by them.
NOT_TO_BE_WRITTEN = {
    "plain-with-sources": {"TD-WRT-004"},  # no place has the bytes
    "files": {"TD-OBJ-002", "TD-PTH-007"},
    "later-minor": {"TD-VER-005", "TD-PCK-007"},
    "at-the-limits": {"TD-OBJ-002", "TD-PTH-006"},
    "listing": {"TD-OBJ-002", "TD-WRT-004"},
    "hint-that-is-garbage": {"TD-WRT-004"},
    "hint-of-another-chain": {"TD-WRT-004"},
    "shortcuts-that-do-not-count": {"TD-MAN-027", "TD-WRT-004"},
    "unknown-feature-of-the-manifest": {"TD-WRT-004"},
    "retention": {"TD-OBJ-012", "TD-WRT-004"},
    "damaged-packs-with-a-way-around": {"TD-OBJ-002", "TD-OBJ-012", "TD-WRT-004"},
}

Judge = Callable[..., set[str]]


def states(models: Mapping[int, Model]) -> dict[int, dict[str, Tensor]]:
    return {version: state_of(model) for version, model in models.items()}


def state_of(model: Model) -> dict[str, Tensor]:
    return {name: Tensor(each.dtype, tuple(each.shape), each.words) for name, each in model.items()}


def rules(found: Iterable[Violation]) -> set[str]:
    return {each.requirement for each in found}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder for a chain."""
    folder = tmp_path / "chain"
    folder.mkdir()
    return folder


# -- good chains -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("good", GOOD, ids=lambda good: good.name)
def test_good_chains(good: Good, root: Path) -> None:
    found = judge(good.builder.write(root), published=states(good.builder.models))
    expected = NOT_TO_BE_WRITTEN.get(good.name, set())
    assert expected <= rules(found), found
    if not expected:
        assert found == []


@pytest.mark.parametrize("good", [each for each in GOOD if each.clean], ids=lambda good: good.name)
def test_good_chains_are_read(good: Good, root: Path) -> None:
    good.builder.write(root)
    if good.name == "plain-with-sources":
        return
    for version, model in good.builder.models.items():
        if manifest_name(version) not in good.builder.objects:
            continue
        assert read_version(root, version) == state_of(model)


def test_what_was_there_before_is_not_judged(root: Path) -> None:
    builder = standard(manifest=setting(features=["x" * 70]), pad=b"\n\n")
    builder.write(root)
    assert {"TD-WRT-004", "TD-PCK-007"} <= rules(judge(root))
    assert judge(root, before=Snapshot.of(root)) == []


def test_states_of_any_class_with_bytes(root: Path) -> None:
    class Other:
        def __init__(self, dtype: str, shape: tuple[int, ...], data: bytes) -> None:
            self.dtype, self.shape, self.data = dtype, shape, data

    builder = standard()
    builder.write(root)
    published = {
        version: {name: Other(each.dtype, tuple(each.shape), each.words.tobytes()) for name, each in model.items()}
        for version, model in builder.models.items()
    }
    assert judge(root, published=published) == []
    published[1]["a.weight"].data = flipped(0)(published[1]["a.weight"].data)
    assert "TD-FPR-007" in rules(judge(root, published=published))


def test_a_version_is_read_over_a_shortcut_where_its_own_pack_is_gone(root: Path) -> None:
    builder = standard()
    builder.full(2, builder.models[2], shortcut="")
    for name in builder.pack_names(1):
        builder.remove(name)
    builder.write(root)
    assert read_version(root, 2) == state_of(builder.models[2])
    with pytest.raises(Fault) as caught:
        read_version(root, 1)
    assert (caught.value.name, caught.value.rule) == ("missing", "TD-MAN-014")
    assert caught.value.object == builder.pack_names(1)[0]


@pytest.mark.slow
def test_the_chains_of_all_cases_for_readers(root: Path) -> None:
    """What a reader has to read is read, and what it has to reject is found, under a name that it may have."""
    for module in pkgutil.iter_modules(areas.__path__):
        importlib.import_module(f"generate.areas.{module.name}")
    seen = 0
    for each in cases.CASES.values():
        if each.kind != "read" or each.verify is not True or "huge" in each.flags or each.builder is None:
            continue
        folder = each.builder.write(root / each.id)
        if each.valid:
            check_read(each, folder)
        else:
            found = [found.message for found in judge(folder) if found.requirement == "TD-WRT-004"]
            assert any(f"({name}, TD-" in message for name in each.errors for message in found), (each.id, found)
        shutil.rmtree(folder)
        seen += 1
    assert seen > 900


def check_read(each: cases.Case, folder: Path) -> None:
    """The state of a valid case is read, but where its route begins with a state that only its reader holds."""
    steps, files = each.content
    if not steps or not isinstance(steps[0]["expect"].get("state"), str):
        return
    to, held = steps[0]["input"]["to"], steps[0]["input"]["held"]
    expected = read_tensors(files[steps[0]["expect"]["state"]])
    try:
        state = read_version(folder, max(Snapshot.of(folder).versions()) if to is None else to)
    except Fault as fault:
        assert held is not None, (each.id, fault)
        assert manifest_name(held["version"]) not in each.objects, (each.id, fault)
        return
    if "tensors" in steps[0]["input"]:
        state = {name: tensor for name, tensor in state.items() if name in expected}
    assert state == expected, each.id


# -- what one object shows ---------------------------------------------------------------------------------------------

BROKEN: dict[str, tuple[set[str], Callable[[], Builder]]] = {}


def broken(name: str, requirement: str, build: Callable[[], Builder], *more: str) -> None:
    """A chain that breaks a requirement, and `more` by the same fault. TD-WRT-004 goes with most of them."""
    assert name not in BROKEN
    BROKEN[name] = ({requirement, *more}, build)


def altered(how: Callable[[Builder], Any], **options: Any) -> Callable[[], Builder]:
    def build() -> Builder:
        builder = standard(**options)
        how(builder)
        return builder

    return build


def removed(kind: str, version: int = 1) -> Callable[[Builder], None]:
    def remove(builder: Builder) -> None:
        manifest = builder.manifests[version]
        names = {
            "pack": builder.pack_names(version)[0],
            "layout": f"layouts/{manifest['layout']}.json",
            "fingerprints": f"fingerprints/{manifest['tensor_fingerprints']}.bin",
        }
        builder.remove(f"files/{manifest['files'][0]['sha256']}" if kind == "file" else names[kind])

    return remove


def renamed(old: str, new: str) -> Callable[[Builder], None]:
    def rename(builder: Builder) -> None:
        builder.put(new, builder.get(old))
        builder.remove(old)

    return rename


def file_path(document: dict[str, Any]) -> None:
    document["files"][0]["path"] = "files/a"


EMPTY = b'{"tensordelta": "1.0", "tensors": []}'
OLD, NEW = one("BF16", [0, 0x3F80, 0, 0x4000]), one("BF16", [0x8000, 0x3F81, 0, 0x4000])


def step_of_zero(shortcut: bool) -> Builder:
    """A chunk that lists a word with a step of 0, as only a writer that takes no care makes it."""
    new = moved(OLD, {1: 0x3F81})
    streams = {"gaps": b"\0\0", "codes": b"\x07", "escapes.0": b"\xfc", "escapes.1": b"\xff"}
    part = Part(streams=streams, counted=[("w", 1, 0x3F80, 0x3F81)], entry={"changed": 2})
    if not shortcut:
        return pair(OLD, new, part)
    builder = line([OLD, new])
    chunk = made(OLD, new, part)
    move(builder, 1, new, 0, spoil=lambda chunks: chunks.__setitem__(slice(None), [chunk]), shortcut="")
    return builder


def shortcut_to(version: int, **change: Any) -> Callable[[Builder], None]:
    """A full shortcut of the standard chain, with other fields."""

    def add(builder: Builder) -> None:
        builder.full(version, builder.models[version], shortcut="", hook=setting(**change))

    return add


def twice_in_header(data: bytes) -> bytes:
    """A plain pack of one tensor whose entry stands twice."""
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].rstrip()
    return safetensors(header[:-1] + b"," + header[1:], data[8 + length :])


def plain_twice() -> Builder:
    def more(builder: Builder, layout: str) -> list[Any]:
        pack = of_plain(NEW, NEW)
        pack.data = twice_in_header(pack.data)
        return [pack]

    return pair(OLD, NEW, more=more)


def many_annotations() -> Builder:
    return standard(manifest=setting(annotations={f"key-{number}": "" for number in range(65)}))


def other_fingerprints(builder: Builder) -> None:
    """The fingerprints object of version 1 has the sums of two tensors in each other's place."""
    name = f"fingerprints/{builder.manifests[1]['tensor_fingerprints']}.bin"
    data = builder.get(name)
    swapped = data[8:16] + data[:8] + data[16:]
    builder.put(f"fingerprints/{digest(swapped)}.bin", swapped)
    document = json.loads(builder.get(manifest_name(1)))
    document["tensor_fingerprints"] = digest(swapped)
    builder.put(manifest_name(1), json.dumps(document).encode())


broken("name-of-no-kind", "TD-OBJ-002", altered(lambda b: b.put("notes.txt", b"x")))
broken("name-of-no-pack", "TD-OBJ-002", altered(lambda b: b.put("packs/1.safetensors", b"x")))
broken("digest-of-other-bytes", "TD-OBJ-002", altered(lambda b: b.change(b.pack_names(1)[0], flipped(-1))))
broken("layout-of-other-bytes", "TD-OBJ-002", altered(lambda b: b.put(f"layouts/{'1' * 64}.json", EMPTY)))
broken(
    "name-of-another-version",
    "TD-OBJ-002",
    altered(renamed(manifest_name(2), manifest_name(3)), last=True),
    "TD-OBJ-014",
)
broken("no-pack", "TD-OBJ-012", altered(removed("pack")))
broken("no-layout", "TD-OBJ-012", altered(removed("layout")))
broken("no-fingerprints", "TD-OBJ-012", altered(removed("fingerprints")))
broken("no-file", "TD-OBJ-012", altered(removed("file")))
broken("no-chain", "TD-OBJ-016", altered(lambda b: b.remove("chain.json")))
broken("path-of-a-pack", "TD-PTH-006", lambda: standard(fields={"path": "packs/mine.safetensors"}), "TD-OBJ-002")
broken("path-of-a-file", "TD-PTH-007", altered(lambda b: b.put("files/a", b"{}"), manifest=file_path), "TD-OBJ-002")
broken(
    "fingerprint-of-the-base", "TD-MAN-008", lambda: standard(manifest=lambda d: d["base"].update(fingerprint="0" * 16))
)
broken("layout-of-the-base", "TD-MAN-008", lambda: standard(manifest=lambda d: d["base"].update(layout="1" * 64)))
broken("shortcut-to-no-version", "TD-MAN-026", altered(lambda b: b.full(9, b.models[2], shortcut="")))
broken("shortcut-of-another-sum", "TD-MAN-027", altered(shortcut_to(2, fingerprint="0" * 16)), "TD-FPR-007")
broken("shortcut-of-another-layout", "TD-MAN-027", altered(shortcut_to(2, layout="1" * 64)), "TD-OBJ-012")
broken("padding-of-newlines", "TD-PCK-007", lambda: standard(pad=b"\n\n\n"))
broken("padding-of-zeros", "TD-PCK-007", lambda: standard(pad=b"   \0"))
broken("entry-twice", "TD-PCK-020", plain_twice)
broken("word-left-out", "TD-CHK-018", lambda: pair(OLD, NEW, Part(new=moved(OLD, {0: 0x8000}))))
broken("word-twice", "TD-CHK-018", lambda: pair(OLD, NEW, Part(), Part()))
broken("minus-zero-left-out", "TD-WRD-002", lambda: pair(OLD, NEW, Part(new=moved(OLD, {1: 0x3F81}))))
broken("step-of-zero", "TD-VAL-004", lambda: step_of_zero(False))
broken("composed-step-of-zero", "TD-WRT-007", lambda: step_of_zero(True))
broken("frame-without-size", "TD-ZST-012", lambda: framed(window=0, size=None))
broken("frame-without-checksum", "TD-ZST-012", lambda: framed(checksum=False))
broken("frame-with-dictionary", "TD-ZST-012", lambda: framed(dictionary=1))
broken("frame-with-window", "TD-LIM-006", lambda: framed(window=0x90))
broken(
    "two-frames",
    "TD-ZST-012",
    lambda: pair(OLD, NEW, Part(compression="zstd", frames=lambda data: frame(data) + frame(b""))),
)
broken("sum-of-the-state", "TD-FPR-007", lambda: standard(manifest=setting(fingerprint="0" * 16), last=False))
broken("sum-of-a-chunk", "TD-FPR-009", lambda: standard(chunks=lambda chunks: chunks[1].update(fingerprint="0" * 16)))
broken("sums-of-tensors", "TD-WRT-004", altered(other_fingerprints))
broken("no-json", "TD-WRT-004", lambda: standard(text=lambda text: text[:-1]))
broken("another-chain", "TD-WRT-004", lambda: standard(manifest=setting(chain=FOREIGN)))
broken("tensors-of-a-pack", "TD-WRT-004", lambda: standard(entry=lambda e: e.update(tensors=[0, 3])))
broken("changed-of-a-pack", "TD-WRT-004", lambda: standard(entry=lambda e: e.update(changed=1)))
broken("padding-of-codes", "TD-WRT-004", lambda: pair(OLD, NEW, Part(streams={"codes": b"\xc7"})))
broken("hint-of-another-chain", "TD-WRT-004", altered(lambda b: b.put("latest.json", hint(FOREIGN, 2))))
broken("feature-not-listed", "TD-VER-004", lambda: standard(**{**exponent(), "features": []}))
broken("minor-of-a-manifest", "TD-VER-005", lambda: standard(manifest=setting(tensordelta="1.1")))
broken("major-of-a-chain", "TD-VER-005", lambda: standard(chain=setting(tensordelta="2.0")))
broken("minor-of-a-layout", "TD-VER-005", lambda: standard(layout=setting(tensordelta="1.1")))
broken("minor-of-a-table", "TD-VER-005", lambda: standard(table=setting(tensordelta="1.1")))
broken("minor-of-a-hint", "TD-VER-005", altered(lambda b: b.put("latest.json", hint(CHAIN, 2).replace(b"1.0", b"1.1"))))
broken("too-many-annotations", "TD-LIM-006", many_annotations)
broken("long-annotation", "TD-LIM-006", lambda: standard(manifest=setting(annotations={"a": "b" * 4096})))
broken("long-name", "TD-LIM-006", lambda: line([{**little(), "n" * 1025: tensor("U8", (1,))}]))
broken("deep-field", "TD-LIM-006", lambda: standard(manifest=setting(deep=json.loads("[" * 16 + "]" * 16))))
broken("signature-of-nothing", "TD-SIG-009", altered(lambda b: b.put(f"{manifest_name(7)}.sig", SIGNATURE)))


SIGNATURE = json.dumps({"tensordelta": "1.0", "keyid": "k", "sig": "A" * 86 + "=="}).encode()


def hint(chain: str, version: int) -> bytes:
    return json.dumps({"tensordelta": "1.0", "chain": chain, "version": version}).encode()


def framed(**how: Any) -> Builder:
    return pair(OLD, NEW, Part(compression="zstd", frames=lambda data: frame(data, **how)))


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_requirement_is_named(name: str, root: Path) -> None:
    requirements, build = BROKEN[name]
    builder = build()
    found = judge(builder.write(root), published=states(builder.models))
    assert rules(found) - {"TD-WRT-004"} == requirements - {"TD-WRT-004"}
    assert requirements <= rules(found)
    assert all(each.object and each.message and each.must for each in found)


def test_the_twins_of_broken_chains_are_good(root: Path) -> None:
    for number, builder in enumerate(
        (standard(), standard(**exponent()), pair(OLD, NEW, Part()), framed(), line([OLD]))
    ):
        folder = root / str(number)
        assert judge(builder.write(folder), published=states(builder.models)) == []


def test_another_state_than_the_published(root: Path) -> None:
    """The chain is sound, and leads to other words than those that were published: the sum was taken from the packs."""
    builder = standard()
    published = states(builder.models) | {1: state_of(stepped(Random(5), builder.models[1]))}
    found = judge(builder.write(root), published=published)
    assert {"TD-FPR-007", "TD-CHK-018"} <= rules(found)
    assert all(each.object == manifest_name(1) for each in found)


@pytest.mark.parametrize(
    ("dtype", "base", "new", "rule"),
    [
        ("BF16", 0x0000, 0x8000, "TD-WRD-002"),
        ("F32", 0x80000000, 0, "TD-WRD-002"),
        ("F64", 0x7FF8000000000000, 0x7FF8000000000001, "TD-WRD-002"),
        ("F16", 0x7C00, 0xFC00, "TD-CHK-018"),  # infinities of two signs are two numbers
        ("F8_E4M3", 0x7F, 0xFF, "TD-WRD-002"),
        ("F8_E5M2FNUZ", 0x00, 0x80, "TD-CHK-018"),  # its NaN
        ("C64", 0x00000000_3F800000, 0x80000000_3F800000, "TD-WRD-002"),
        ("U16", 0x0000, 0x8000, "TD-CHK-018"),
    ],
)
def test_words_left_out_that_are_equal_as_numbers(dtype: str, base: int, new: int, rule: str, root: Path) -> None:
    old, other = one(dtype, [base, 1]), one(dtype, [new, 2])
    builder = pair(old, other, Part(new=one(dtype, [base, 2])))
    found = [
        each for each in judge(builder.write(root), published=states(builder.models)) if "left" not in each.message
    ]
    assert {"TD-WRD-002", "TD-CHK-018"} & rules(found) == {rule}


def test_another_layout_than_the_published(root: Path) -> None:
    builder = standard()
    published = states(builder.models)
    published[1] = published[1] | {"z": Tensor.of("U8", (1,), b"\0")}
    assert "TD-TRM-001" in rules(judge(builder.write(root), published=published))


def test_advice(root: Path) -> None:
    builder = standard(fingerprints=False)
    builder.latest(1)
    builder.write(root)
    assert judge(root, published=states(builder.models)) == []
    found = judge(root, published=states(builder.models), advice=True)
    assert [(each.requirement, each.must) for each in found] == [("TD-FPR-004", False)]
    request = Step(root).publish(builder.models[2])
    answer = {"ok": True, "version": 2}
    found = judge(root, before=Snapshot.of(root), request=request, answer=answer, advice=True)
    assert [(each.requirement, each.must) for each in found] == [("TD-OBJ-020", False)]


# -- steps -------------------------------------------------------------------------------------------------------------


class Step:
    """One step of a writer: a chain before and after it, and its request and answer."""

    def __init__(self, root: Path, before: Builder | None = None) -> None:
        self.root = root
        self.published: dict[int, dict[str, Tensor]] = {}
        if before is not None:
            before.write(root)
            self.published = states(before.models)
        self.before = Snapshot.of(root)

    def rules(self, after: Builder | None = None, **how: Any) -> set[str]:
        """The requirements that the step broke, once its objects are written."""
        if after is not None:
            after.write(self.root)
            self.published |= states(after.models)
        return rules(judge(self.root, before=self.before, published=self.published, **how))

    def state(self, model: Model) -> str:
        """The state to publish, as a file."""
        path = self.root.parent / "state.safetensors"
        path.write_bytes(state_file(model))
        return str(path)

    def publish(self, model: Model, **members: Any) -> dict[str, Any]:
        return {"op": "publish", "chain": str(self.root), "state": self.state(model), **members}


STATES = walk(4)


def test_published(root: Path) -> None:
    step = Step(root, line(STATES[:1]))
    assert step.rules(line(STATES[:2]), request=step.publish(STATES[1]), answer={"ok": True, "version": 1}) == set()


def test_the_state_of_the_request_is_what_was_published(root: Path) -> None:
    step = Step(root, line(STATES[:1]))
    line(STATES[:2]).write(root)
    request = step.publish(STATES[2])
    assert {"TD-FPR-007", "TD-CHK-018"} <= step.rules(request=request, answer={"ok": True, "version": 1})


@pytest.mark.parametrize("how", ["changed", "removed"])
def test_an_object_that_is_not_what_it_was(how: str, root: Path) -> None:
    step = Step(root, line(STATES[:1]))
    builder = line(STATES[:2])
    builder.write(root)
    path = root / manifest_name(0)
    if how == "changed":
        path.write_bytes(path.read_bytes() + b"\n")
    else:
        path.unlink()
    found = step.rules(request=step.publish(STATES[1]), answer={"ok": True, "version": 1})
    assert "TD-OBJ-003" in found


def test_a_hint_and_a_signature_may_change(root: Path) -> None:
    builder = line(STATES[:2])
    builder.latest(0)
    builder.put("chain.json.sig", SIGNATURE)
    step = Step(root, builder)
    builder.latest(1)
    builder.put("chain.json.sig", SIGNATURE.replace(b"A", b"B"))
    assert step.rules(builder) == set()


def test_a_number_that_is_not_the_greatest(root: Path) -> None:
    builder = line(STATES[:1])
    builder.delta(5, STATES[1], 0)
    step = Step(root, builder)
    builder.delta(3, STATES[2], 0)
    assert step.rules(builder) == {"TD-OBJ-014"}


def test_a_number_that_was_once_published(root: Path) -> None:
    step = Step(root, line(STATES[:2]))
    (root / manifest_name(1)).unlink()
    step.before = Snapshot.of(root)
    step.published[7] = state_of(STATES[3])
    assert step.rules(line(STATES[:2])) == {"TD-OBJ-014"}


def test_success_without_a_version(root: Path) -> None:
    step = Step(root, line(STATES[:1]))
    assert step.rules(request=step.publish(STATES[1]), answer={"ok": True, "version": 1}) == {"TD-ERR-004"}


def test_an_error_and_nothing_written_is_all_right(root: Path) -> None:
    step = Step(root, line(STATES[:1]))
    assert step.rules(request=step.publish(STATES[1]), answer={"error": "conflict"}) == set()


def test_an_error_though_the_version_is_there(root: Path) -> None:
    step = Step(root, line(STATES[:1]))
    assert step.rules(line(STATES[:2]), request=step.publish(STATES[1]), answer={"error": "conflict"}) == {PROTOCOL}


def test_the_same_state_again_is_ones_own_success(root: Path) -> None:
    step = Step(root, line(STATES[:2]))
    answer = {"ok": True, "version": 1}
    assert step.rules(request=step.publish(STATES[1], version=1), answer=answer) == set()
    assert step.rules(request=step.publish(STATES[2], version=1), answer=answer) == {"TD-WRT-006"}
    config = root.parent / "config.json"
    config.write_bytes(b"{}")
    request = step.publish(STATES[1], version=1, files={"config.json": str(config)})
    assert step.rules(request=request, answer=answer) == {"TD-WRT-006"}


def test_a_race_in_which_both_are_told_that_they_won(root: Path) -> None:
    step = Step(root, line(STATES[:1]))
    line(STATES[:2]).write(root)
    step.published[1] = state_of(STATES[1])
    answer = {"ok": True, "version": 1}
    assert step.rules(request=step.publish(STATES[1], version=1), answer=answer) == set()
    assert step.rules(request=step.publish(STATES[2], version=1), answer=answer) == {"TD-WRT-006"}


@pytest.mark.parametrize(
    ("members", "answer"),
    [
        ({"version": 2}, 1),
        ({"full": True}, 1),
        ({"annotations": {"a": "b"}}, 1),
        ({"files": True}, 1),
        ({}, None),
        ({}, "1"),
        ({}, True),
    ],
)
def test_not_what_was_asked_for(members: dict[str, Any], answer: Any, root: Path) -> None:
    step = Step(root, line(STATES[:1]))
    if "files" in members:
        config = root.parent / "config.json"
        config.write_bytes(b"{}")
        members = {"files": {"config.json": str(config)}}
    request = step.publish(STATES[1], **members)
    assert step.rules(line(STATES[:2]), request=request, answer={"ok": True, "version": answer}) == {PROTOCOL}


def test_another_base_than_the_newest(root: Path) -> None:
    builder = line(STATES[:2])
    step = Step(root, builder)
    builder.delta(2, STATES[2], 0)
    assert step.rules(builder, request=step.publish(STATES[2]), answer={"ok": True, "version": 2}) == {PROTOCOL}


def test_orders(root: Path) -> None:
    old = small(Random(3))
    new = stepped(Random(4), old, 0.4)
    coding = {"order": "exponent", "limit": 128}
    chunks = {name: [each] for name in ("a.weight",) for each in delta_chunks(old, {**old, name: new[name]})}
    assert chunks["a.weight"][0].entry["changed"] >= 64
    natural, other = line([old]), line([old])
    natural.delta(1, {**old, "a.weight": new["a.weight"]}, 0)
    other.delta(1, {**old, "a.weight": new["a.weight"]}, 0, coding=coding, features=["exponent-order"])
    for number, (builder, order, expected) in enumerate(
        [
            (natural, "natural", set()),
            (natural, "exponent", {PROTOCOL}),
            (other, "natural", {PROTOCOL}),
            (other, "exponent", set()),
        ]
    ):
        step = Step(root / str(number), line([old]))
        request = step.publish(builder.models[1], order=order)
        assert step.rules(builder, request=request, answer={"ok": True, "version": 1}) == expected


def test_shortcuts(root: Path) -> None:
    builder = line(STATES)
    step = Step(root, builder)
    request = {"op": "shortcut", "chain": str(root), "from": 0, "to": 3, "tag": "a"}
    answer = {"ok": True}
    assert step.rules(request=request, answer=answer) == {"TD-ERR-004"}
    builder.delta(3, STATES[3], 0, shortcut="a")
    assert step.rules(builder, request=request, answer=answer) == set()
    assert step.rules(request={**request, "tag": "b"}, answer=answer) == {"TD-ERR-004"}
    assert step.rules(request={**request, "from": None}, answer=answer) == {"TD-ERR-004"}


def test_a_shortcut_to_other_words(root: Path) -> None:
    builder = line(STATES)
    step = Step(root, builder)
    move(builder, 3, STATES[3], 0, shortcut="", start=STATES[1])
    assert "TD-WRT-004" in step.rules(builder)


# -- killed steps ------------------------------------------------------------------------------------------------------


def test_a_manifest_before_its_pack(root: Path) -> None:
    step = Step(root, line(STATES[:1]))
    builder = line(STATES[:2])
    pack = builder.pack_names(1)[0]
    data = builder.get(pack)
    builder.remove(pack)
    request = step.publish(STATES[1], version=1)
    assert "TD-OBJ-012" in step.rules(builder, request=request, answer=None)
    builder.put(pack, data[:-1])
    assert "TD-WRT-004" in step.rules(builder, request=request, answer=None)


def test_a_torn_pack_that_nothing_names_is_untidy(root: Path) -> None:
    step = Step(root, line(STATES[:1]))
    name = f"packs/{'0' * 64}.safetensors"
    (root / name).write_bytes(b"torn")
    request = step.publish(STATES[1], version=1)
    assert step.rules(request=request, answer=None) == set()
    found = judge(root, before=step.before, request=request, answer=None, advice=True)
    assert [(each.requirement, each.object) for each in found] == [("TD-STO-004", name)]
    killed = Snapshot.of(root)
    answer = {"ok": True, "version": 1}
    assert step.rules(line(STATES[:2]), request=request, answer=answer, between=[killed]) == set()
    assert step.rules(request=request, answer=answer) == {"TD-OBJ-002"}


def test_temporary_files(root: Path) -> None:
    step = Step(root, line(STATES[:1]))
    (root / "packs/.tmp-1").write_bytes(b"torn")
    (root / "part").write_bytes(b"torn")
    request = step.publish(STATES[1], version=1)
    assert step.rules(request=request, answer=None) == set()
    answer = {"ok": True, "version": 1}
    assert step.rules(line(STATES[:2]), request=request, answer=answer) == {"TD-OBJ-002"}
    (root / "part").unlink()
    assert step.rules(request=request, answer=answer) == set()


def test_chain_json_after_a_pack(root: Path) -> None:
    step = Step(root)
    builder = line(STATES[:1])
    pack = builder.pack_names(0)[0]
    (root / "packs").mkdir()
    (root / pack).write_bytes(builder.get(pack))
    killed = Snapshot.of(root)
    request = step.publish(STATES[0], version=0)
    assert step.rules(request=request, answer=None) == {"TD-OBJ-016"}
    answer = {"ok": True, "version": 0}
    assert "TD-OBJ-016" in step.rules(builder, request=request, answer=answer, between=[killed])


def test_a_pack_that_a_kill_left_is_put_again(root: Path) -> None:
    step = Step(root, line(STATES[:1]))
    builder = line(STATES[:2])
    pack = builder.pack_names(1)[0]
    (root / pack).write_bytes(builder.get(pack))
    killed = Snapshot.of(root)
    rest = line(STATES[:2])
    rest.remove(pack)
    request, answer = step.publish(STATES[1], version=1), {"ok": True, "version": 1}
    assert step.rules(rest, request=request, answer=answer, between=[killed]) == {"TD-RET-005"}
    (root / pack).unlink()
    (root / "packs/.tmp").write_bytes(builder.get(pack))
    (root / "packs/.tmp").rename(root / pack)
    os.utime(root / pack)
    assert step.rules(request=request, answer=answer, between=[killed]) == set()


def test_a_file_that_lay_there_is_put_again(root: Path) -> None:
    orphan = line(STATES[:1])
    entry = orphan.file("config.json", b"{}")
    step = Step(root, orphan)
    builder = line(STATES[:1])
    builder.delta(1, STATES[1], 0, files=[entry])
    assert step.rules(builder) == {"TD-RET-005"}
    os.utime(root / entry["path"], ns=(0, 0))
    assert step.rules() == set()


def test_a_file_that_another_version_names_need_not_be_put_again(root: Path) -> None:
    builder = line(STATES[:1])
    builder.delta(1, STATES[1], 0, files=[builder.file("config.json", b"{}")])
    step = Step(root, builder)
    after = line(STATES[:1])
    after.objects = {}
    after.models[1], after.manifests[1] = STATES[1], builder.manifests[1]
    after.delta(2, STATES[2], 1, files=builder.manifests[1]["files"])
    assert step.rules(after) == set()


def test_a_torn_file_may_be_mended(root: Path) -> None:
    torn = line(STATES[:1])
    entry = torn.file("config.json", b"{}")
    torn.put(entry["path"], b"{")
    step = Step(root, torn)
    builder = line(STATES[:1])
    builder.delta(1, STATES[1], 0, files=[builder.file("config.json", b"{}")])
    assert step.rules(builder) == set()
    assert step.rules(torn) == {"TD-WRT-004"}


# -- retention ---------------------------------------------------------------------------------------------------------


def collected(root: Path, *names: str, keep: list[int], grace: float = 0, age: float = 0.0) -> set[str]:
    """What deleting these objects of the chain of four versions and two shortcuts breaks."""
    builder = kept_chain()
    builder.write(root)
    for name in builder.objects:
        then = time.time() - age
        os.utime(root / name, (then, then))
    step = Step(root)
    step.published = states(builder.models)
    for name in names:
        (root / name).unlink()
    request = {"op": "collect", "chain": str(root), "keep": keep, "grace": grace}
    return step.rules(request=request, answer={"ok": True})


def kept_chain() -> Builder:
    """Four versions; version 3 is reached from nothing, too."""
    builder = line(STATES)
    builder.full(3, STATES[3], shortcut="", files=[builder.file("config.json", b"{}")])
    return builder


def pack_of(version: int) -> str:
    return kept_chain().pack_names(version)[0]


def test_collected(root: Path) -> None:
    dropped = [manifest_name(version) for version in (0, 1, 2)]
    packs = [pack_of(version) for version in range(4)]
    assert collected(root, *dropped, *packs, keep=[3]) == set()


def test_a_version_that_stays_without_a_route(root: Path) -> None:
    assert collected(root, manifest_name(0), pack_of(0), keep=[1, 3]) == {"TD-RET-001"}


def test_chain_json_is_gone(root: Path) -> None:
    assert "TD-RET-001" in collected(root, "chain.json", keep=[0, 1, 2, 3])


def test_a_version_to_be_kept_is_gone(root: Path) -> None:
    assert collected(root, *(manifest_name(version) for version in (1, 2)), keep=[2, 3]) == {PROTOCOL}


@pytest.mark.parametrize("kind", ["layout", "fingerprints", "file"])
def test_an_object_that_is_still_named(kind: str, root: Path) -> None:
    builder = kept_chain()
    manifest = json.loads(builder.get(shortcut_name(3, None)))
    name = {
        "layout": f"layouts/{manifest['layout']}.json",
        "fingerprints": f"fingerprints/{manifest['tensor_fingerprints']}.bin",
        "file": manifest["files"][0]["path"],
    }[kind]
    assert "TD-RET-004" in collected(root, name, keep=[3])


@pytest.mark.parametrize(("age", "grace", "expected"), [(50, 100, {"TD-RET-003"}), (150, 100, set())])
def test_grace(age: float, grace: float, expected: set[str], root: Path) -> None:
    dropped = [manifest_name(version) for version in (0, 1, 2)]
    assert collected(root, *dropped, pack_of(1), keep=[3], grace=grace, age=age) == expected


def test_a_manifest_deleted_after_its_pack(root: Path) -> None:
    step = Step(root, kept_chain())
    (root / pack_of(1)).unlink()
    killed = Snapshot.of(root)
    for name in (manifest_name(0), manifest_name(1), manifest_name(2)):
        (root / name).unlink()
    request = {"op": "collect", "chain": str(root), "keep": [3], "grace": 0}
    assert step.rules(request=request, answer={"ok": True}, between=[killed]) == {"TD-RET-002"}
    assert step.rules(request=request, answer={"ok": True}) == set()


def test_a_killed_collector_is_judged_by_what_it_has_to_keep(root: Path) -> None:
    step = Step(root, kept_chain())
    (root / pack_of(1)).unlink()
    killed = {"op": "collect", "chain": str(root), "grace": 0}
    assert step.rules(request={**killed, "keep": [3]}, answer=None) == set()
    assert step.rules(request={**killed, "keep": [2, 3]}, answer=None) == {"TD-RET-001"}


# -- pins --------------------------------------------------------------------------------------------------------------


def pin(**members: Any) -> bytes:
    """A pin of version 1; `...` leaves a member out."""
    document = {"tensordelta": "1.0", "chain": CHAIN, "version": 1} | members
    return json.dumps({name: value for name, value in document.items() if value is not ...}).encode()


def collected_with_a_pin(
    root: Path, data: bytes, *, age: float = 0, keep: tuple[int, ...] = (), name: str = "pins/a.json", **how: Any
) -> set[str]:
    """What a collector that keeps version 3, and `keep`, breaks while there is a pin."""
    builder = kept_chain()
    builder.put(name, data)
    step = Step(root, builder)
    os.utime(root / name, (time.time() - age,) * 2)
    step.before = Snapshot.of(root)
    for version in {0, 1, 2} - set(keep):
        (root / manifest_name(version)).unlink()
    if how.pop("unpinned", False):
        (root / name).unlink()
    request = {"op": "collect", "chain": str(root), "keep": [3], "grace": 0}
    return step.rules(request=request, **({"answer": {"ok": True}} | how))


@pytest.mark.parametrize("unpinned", [False, True], ids=["stays", "goes too"])
@pytest.mark.parametrize(
    ("members", "age", "expected"),
    [
        ({}, 10**8, {"TD-RET-007"}),
        ({"seconds": 100}, 50, {"TD-RET-007"}),
        ({"seconds": 100}, -50, {"TD-RET-007"}),
        ({"seconds": 100}, 150, set()),
        ({"seconds": 0}, 0, set()),
        ({"seconds": 100, "later": None}, 50, {"TD-RET-007"}),
        ({"chain": FOREIGN}, 0, set()),
        ({"version": 3}, 0, set()),
        ({"version": 7}, 0, set()),
    ],
)
def test_pins(members: dict[str, Any], age: float, expected: set[str], unpinned: bool, root: Path) -> None:
    assert collected_with_a_pin(root, pin(**members), age=age, unpinned=unpinned) == expected


@pytest.mark.parametrize(
    "data",
    [
        pin(seconds=None),
        pin(seconds=-1),
        pin(seconds=1.5),
        pin(seconds="604800"),
        pin(version=...),
        pin(version=10**12),
        pin(version="1"),
        pin(chain=...),
        pin(chain="x"),
        pin(chain=FOREIGN, version=None),
        pin(tensordelta="2.0"),
        pin(tensordelta=...),
        pin(more="x" * 65536),
        pin()[:-1] + b', "version": 1}',
        pin() + b"x",
        b"",
        b"[]",
    ],
)
def test_a_pin_that_breaks_a_rule(data: bytes, root: Path) -> None:
    assert collected_with_a_pin(root / "a", data) == {"TD-RET-009"}
    assert collected_with_a_pin(root / "b", data, keep=(0, 1, 2)) == set()
    assert collected_with_a_pin(root / "c", data, name="pins/clock-1") == set()


def test_a_pinned_version_is_kept_with_its_route(root: Path) -> None:
    assert collected_with_a_pin(root / "a", pin(), keep=(0, 1)) == set()
    assert collected_with_a_pin(root / "b", pin(), keep=(1,)) == {"TD-RET-001"}
    assert collected_with_a_pin(root / "c", pin(), keep=(1,), answer=None) == {"TD-RET-001"}
    assert collected_with_a_pin(root / "d", pin(seconds=0), keep=(1,), answer=None) == set()


def test_a_pin_may_be_written_anew_and_removed_by_anyone(root: Path) -> None:
    builder = line(STATES[:1])
    builder.put("pins/a.json", pin())
    step = Step(root, builder)
    request, answer = step.publish(STATES[1]), {"ok": True, "version": 1}
    (root / "pins/a.json").write_bytes(pin(seconds=5))
    assert step.rules(line(STATES[:2]), request=request, answer=answer) == set()
    (root / "pins/a.json").write_bytes(pin(tensordelta="1.1"))
    assert step.rules(request=request, answer=answer) == {"TD-VER-005"}
    (root / "pins/a.json").unlink()
    assert step.rules(request=request, answer=answer) == set()


def test_a_clock_that_a_killed_collector_left(root: Path) -> None:
    step = Step(root, kept_chain())
    (root / "pins").mkdir()
    (root / "pins/clock-1").write_bytes(b"")
    killed = Snapshot.of(root)
    request = {"op": "collect", "chain": str(root), "keep": [0, 1, 2, 3], "grace": 0}
    assert step.rules(request=request, answer=None) == set()
    assert step.rules(request=request, answer={"ok": True}, between=[killed]) == set()
    assert step.rules(request=request, answer={"ok": True}) == {"TD-OBJ-002"}


# -- signatures --------------------------------------------------------------------------------------------------------

SECRET = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")


@pytest.mark.parametrize("how", ["right", "absent", "wrong", "of-chain-absent"])
def test_signed(how: str, root: Path) -> None:
    import base64

    step = Step(root)
    builder = line(STATES[:1])
    for name in ("chain.json", manifest_name(0)):
        if how == "absent" or (how == "of-chain-absent" and name == "chain.json"):
            continue
        signature = base64.b64encode(sign(SECRET, builder.get(name))).decode()
        if how == "wrong":
            signature = "B" + signature[1:] if signature[0] != "B" else "C" + signature[1:]
        builder.put(f"{name}.sig", json.dumps({"tensordelta": "1.0", "keyid": "k", "sig": signature}).encode())
    request = step.publish(STATES[0], key=SECRET.hex())
    expected = {"right": set(), "wrong": {"TD-WRT-004"}}.get(how, {PROTOCOL})
    assert step.rules(builder, request=request, answer={"ok": True, "version": 0}) == expected


def test_ed25519_of_rfc_8032() -> None:
    """Section 7.1, TEST 1."""
    public = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    signature = bytes.fromhex(
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )
    assert ed25519.public_key(SECRET) == public
    assert ed25519.verify(public, b"", signature)
    assert not ed25519.verify(public, b"x", signature)
    assert not ed25519.verify(public, b"", signature[:-1] + b"\x0c")


# -- the folder --------------------------------------------------------------------------------------------------------


def test_links(root: Path) -> None:
    """A link inside the root is an object, a link out of it is none."""
    builder = line(STATES[:1])
    builder.write(root)
    outside = root.parent / "outside"
    outside.write_bytes(b"{}")
    (root / "files").mkdir()
    (root / "files" / hashlib.sha256(b"{}").hexdigest()).symlink_to(outside)
    (root / manifest_name(1)).symlink_to(root / manifest_name(0))
    (root / manifest_name(2)).symlink_to(root / "nothing")
    snapshot = Snapshot.of(root)
    assert snapshot.versions() == [0, 1]
    assert snapshot.names("file") == []


def test_a_state_that_is_too_large_is_a_limit(root: Path) -> None:
    builder = line([{"a": tensor("U8", (4,))}])
    document = {"tensordelta": "1.0", "tensors": [{"name": "a", "dtype": "U8", "shape": [2**48]}]}
    data = json.dumps(document).encode()
    builder.put(f"layouts/{digest(data)}.json", data)
    builder.change(manifest_name(0), replaced(builder.manifests[0]["layout"].encode(), digest(data).encode()))
    found = judge(builder.write(root))
    assert any("TD-LIM-002" in each.message for each in found)


@pytest.mark.parametrize("seed", range(5))
def test_no_damage_stops_the_judge(seed: int, root: Path) -> None:
    rng = Random(f"damage/{seed}")
    builders = [standard(), standard(compression="zstd"), kept_chain()]
    for number in range(12):
        builder = builders[number % len(builders)]
        names = sorted(builder.objects)
        (name,) = (names[at] for at in rng.below(len(names), 1))
        data = builder.objects[name]
        at, length = rng.below(len(data), 1)[0], rng.below(9, 1)[0]
        spoiled = data[:at] + rng.bytes(length) + data[at + rng.below(9, 1)[0] :]
        folder = builder.write(root / str(number))
        (folder / name).write_bytes(spoiled)
        found = judge(folder, published=states(builder.models))
        assert found or spoiled == data or json_alike(name, data, spoiled), (name, at)


def json_alike(name: str, data: bytes, spoiled: bytes) -> bool:
    """Whether a document that is named by no digest says the same, or what a writer may choose."""
    if name.startswith(("packs/", "layouts/", "fingerprints/", "files/")):
        return False
    try:
        before, after = json.loads(data), json.loads(spoiled)
    except ValueError:
        return False
    known = ("layout", "fingerprint", "base", "packs", "version", "chain", "tensordelta")
    return all(before.get(key) == after.get(key) for key in known)
