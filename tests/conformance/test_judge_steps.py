"""The judge of writers: what a step asked for, what it did, and what it left where it was killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from judged import SIGNATURE, STATES, Step, state_of

from generate import signing
from generate.builder import manifest_name
from generate.codecs import delta_chunks
from generate.ed25519 import sign
from generate.model import Random, small, stepped
from generate.scenes import line, move
from tensordelta_conformance.judge import PROTOCOL, Snapshot, ed25519, judge


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


def test_a_hint_and_a_broken_signature_may_change(root: Path) -> None:
    builder = line(STATES[:2])
    builder.latest(0)
    name = f"signatures/{'0' * 64}-{'1' * 16}.json"
    builder.put(name, b"{")
    step = Step(root, builder)
    builder.latest(1)
    builder.put(name, SIGNATURE)
    assert step.rules(builder) == set()


def test_a_number_that_is_not_the_greatest(root: Path) -> None:
    builder = line(STATES[:1])
    builder.delta(5, STATES[1], 0)
    step = Step(root, builder)
    builder.delta(3, STATES[2], 0)
    assert step.rules(builder) == {"TD-OBJ-014"}


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
    assert step.rules(builder, request=step.publish(STATES[2]), answer={"ok": True, "version": 2}) == {"TD-RET-015"}


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
    name = f"packs/{'0' * 64}-{'1' * 16}.safetensors"
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


def test_a_pack_that_a_kill_left_is_no_pack_of_the_next_attempt(root: Path) -> None:
    step = Step(root, line(STATES[:1]))
    builder = line(STATES[:2])
    pack = builder.pack_names(1)[0]
    (root / pack).write_bytes(builder.get(pack))
    killed = Snapshot.of(root)
    request, answer = step.publish(STATES[1], version=1), {"ok": True, "version": 1}
    assert step.rules(builder, request=request, answer=answer, between=[killed]) == {"TD-RET-012"}
    assert step.rules(request=request, answer=answer) == set()


def test_a_file_that_lay_there_is_not_named(root: Path) -> None:
    orphan = line(STATES[:1])
    entry = orphan.file("config.json", b"{}")
    step = Step(root, orphan)
    builder = line(STATES[:1])
    builder.delta(1, STATES[1], 0, files=[entry])
    assert step.rules(builder) == {"TD-RET-012"}


def test_a_file_of_the_version_before_is_shared(root: Path) -> None:
    first = line(STATES[:1])
    entry = first.file("config.json", b"{}")
    first.delta(1, STATES[1], 0, files=[entry])
    step = Step(root, first)
    first.delta(2, STATES[2], 1, files=[entry])
    assert step.rules(first) == set()


# -- signatures --------------------------------------------------------------------------------------------------------

SECRET = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")


@pytest.mark.parametrize("how", ["right", "absent", "wrong", "of-chain-absent", "without-name", "late"])
def test_signed(how: str, root: Path) -> None:
    step = Step(root)
    builder = line(STATES[:1])
    builder.write(root)
    between = [Snapshot.of(root)] if how == "late" else []
    for name in ("chain.json", manifest_name(0)):
        if how == "absent" or (how == "of-chain-absent" and name == "chain.json"):
            continue
        message = builder.get(name) if how == "without-name" else signing.message(name, builder.get(name))
        sig = bytearray(sign(SECRET, message))
        sig[0] ^= how == "wrong"
        builder.put(signing.signature_name(builder, name, SECRET), signing.document(bytes(sig)))
    request = step.publish(STATES[0], key=SECRET.hex())
    expected = {"right": set(), "wrong": {"TD-WRT-004"}, "without-name": {"TD-WRT-004"}}.get(how, {"TD-SIG-010"})
    found = step.rules(builder, request=request, answer={"ok": True, "version": 0}, between=between)
    assert found == expected


@pytest.mark.parametrize("how", ["base", "success"])
def test_what_is_not_signed_is_no_base_and_no_success(how: str, root: Path) -> None:
    builder = signing.signed(line(STATES[:2]), manifest_name(1), secret=SECRET)
    step = Step(root, builder)
    version = 1 if how == "success" else 2
    if how == "base":
        builder.delta(2, STATES[2], 1)
        signing.sign(builder, manifest_name(2), SECRET)
    request = step.publish(STATES[version], version=version, key=SECRET.hex())
    assert step.rules(builder, request=request, answer={"ok": True, "version": version}) == {"TD-SIG-013"}


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
