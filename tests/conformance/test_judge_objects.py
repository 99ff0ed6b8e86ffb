"""The judge of writers: each requirement that the objects of one chain show is missed where it is broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from judged import SIGNATURE, Step, rules, state_of, states

from generate.builder import Builder, digest, manifest_name, of_plain, safetensors
from generate.frames import frame
from generate.model import CHAIN, FOREIGN, Random, stepped, tensor
from generate.pair import Part, moved, one, pair
from generate.scenes import line, little
from generate.standard import exponent, flipped, setting, standard
from tensordelta_conformance.judge import Snapshot, Tensor, judge

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
        builder.remove(manifest["files"][0]["path"] if kind == "file" else names[kind])

    return remove


def renamed(old: str, new: str) -> Callable[[Builder], None]:
    def rename(builder: Builder) -> None:
        builder.put(new, builder.get(old))
        builder.remove(old)

    return rename


def file_path(document: dict[str, Any]) -> None:
    document["files"][0]["path"] = "files/a"


EMPTY = b'{"tensordelta": "1.0-rc.1", "tensors": []}'
OLD, NEW = one("BF16", [0, 0x3F80, 0, 0x4000]), one("BF16", [0x8000, 0x3F81, 0, 0x4000])


def step_of_zero() -> Builder:
    """A chunk that lists a word with a step of 0, as only a writer that takes no care makes it."""
    new = moved(OLD, {1: 0x3F81})
    streams = {"gaps": b"\0\0", "codes": b"\x07", "escapes.0": b"\xfc", "escapes.1": b"\xff"}
    part = Part(streams=streams, counted=[("w", 1, 0x3F81)], entry={"changed": 2})
    return pair(OLD, new, part)


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
broken("entry-twice", "TD-WRT-004", plain_twice)
broken("word-left-out", "TD-CHK-018", lambda: pair(OLD, NEW, Part(new=moved(OLD, {0: 0x8000}))))
broken("word-twice", "TD-CHK-018", lambda: pair(OLD, NEW, Part(), Part()))
broken("minus-zero-left-out", "TD-WRD-002", lambda: pair(OLD, NEW, Part(new=moved(OLD, {1: 0x3F81}))))
broken("step-of-zero", "TD-VAL-004", step_of_zero)
broken("frame-without-size", "TD-ZST-012", lambda: framed(window=0, size=None))
broken("frame-with-dictionary", "TD-ZST-012", lambda: framed(dictionary=1))
broken("frame-with-window", "TD-LIM-006", lambda: framed(window=0x90))
broken(
    "two-frames",
    "TD-ZST-012",
    lambda: pair(OLD, NEW, Part(compression="zstd", frames=lambda data: frame(data) + frame(b""))),
)
broken("sum-of-the-state", "TD-FPR-007", lambda: standard(manifest=setting(fingerprint="0" * 16), last=False))
broken("sum-of-a-chunk", "TD-CHK-025", lambda: standard(chunks=lambda chunks: chunks[1].update(result="0" * 16)))
broken("sums-of-tensors", "TD-WRT-004", altered(other_fingerprints))
broken("no-json", "TD-WRT-004", lambda: standard(text=lambda text: text[:-1]))
broken("another-chain", "TD-WRT-004", lambda: standard(manifest=setting(chain=FOREIGN)))
broken("tensors-of-a-pack", "TD-WRT-004", lambda: standard(entry=lambda e: e.update(tensors=[[0, 3]])))
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
broken(
    "broken-signature",
    "TD-WRT-004",
    altered(lambda b: b.put(f"signatures/{'0' * 64}-{'1' * 16}.json", SIGNATURE.replace(b"==", b""))),
)


def hint(chain: str, version: int) -> bytes:
    return json.dumps({"tensordelta": "1.0-rc.1", "chain": chain, "version": version}).encode()


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
