"""Readers with trusted keys: which chains they accept, and that they never go back to an older version."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gallery import CHAIN, MemoryStore, as_state, manifest_name
from signed_chains import (
    ANOTHER,
    FIRST,
    OTHER_PUBLIC,
    OTHER_SECRET,
    PUBLIC,
    SECOND,
    SHORTCUT,
    _line,
    is_member,
    sig,
    sign,
    sign_all,
    signature_of,
    skipping,
    state,
    store_of,
    trusting,
    unsign,
)

import tensordelta as td
from generate.scenes import line, little, walk
from tensordelta.read import documents

# -- readers -----------------------------------------------------------------------------------------------------------


def test_a_signed_chain_reads(tmp_path: Path) -> None:
    chain = trusting(store_of())
    assert chain.versions() == [0, 1, 2] and chain.newest() == 2
    assert chain.load().equals(state(2))
    held = state(0)
    held.version, held.chain = 0, CHAIN
    chain = trusting(store_of())
    chain.prepare(held, 1).apply()
    assert held.equals(state(1))
    assert trusting(store_of()).pull(tmp_path / "out").version == 2
    assert trusting(store_of()).read(2, "a.weight").tobytes() == state(2)["a.weight"].tobytes()
    assert trusting(store_of()).load_part(["b.bias"], 2).layout.index.keys() == {"b.bias"}
    assert [row.version for row in chain.log()] == [0, 1, 2]
    assert trusting(store_of()).verify(deep=True).ok


def by_another(objects: dict[str, bytes], name: str) -> None:
    """An object has the signature of the second key, and not that of the first."""
    unsign(objects, name)
    sign(objects, name, OTHER_SECRET)


#: What asks for a version by its number.
ASK: dict[str, Callable[[td.Chain, int, Path], object]] = {
    "load": lambda chain, version, _: chain.load(version),
    "prepare": lambda chain, version, _: chain.prepare(state(0), version),
    "pull": lambda chain, version, folder: chain.pull(folder, version),
    "read": lambda chain, version, _: chain.read(version, "a.weight"),
    "load_part": lambda chain, version, _: chain.load_part(["a.weight"], version),
    "plan": lambda chain, version, _: chain.plan(version),
    "plan from": lambda chain, version, _: chain.plan(version, 0),
    "manifest": lambda chain, version, _: chain.manifest(version),
    "layout": lambda chain, version, _: chain.layout(version),
}


@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda objects: unsign(objects, SECOND),
        lambda objects: by_another(objects, SECOND),
        lambda objects: objects.update({sig(objects, SECOND): objects[sig(objects, FIRST)]}),
        lambda objects: objects.update({sig(objects, SECOND): b"{"}),
        lambda objects: sign(objects, SECOND, tensordelta="2.0"),
        lambda objects: sign(objects, SECOND, padding=" " * 65536),
        lambda objects: objects.update({SECOND: objects[SECOND] + b" "}),
        # Bytes that no parser accepts: the signature comes first.
        lambda objects: objects.update({SECOND: b"{"}),
        # A full shortcut to it, under the name of the version: the signed message has the name.
        lambda objects: objects.update({SECOND: objects[SHORTCUT]}),
    ],
    ids=[
        "unsigned",
        "another key",
        "another's signature",
        "broken",
        "a later format",
        "too long",
        "altered",
        "no JSON",
        "a shortcut",
    ],
)
def test_a_version_that_no_trusted_key_signed(
    ask: str, spoil: Callable[[dict[str, bytes]], object], tmp_path: Path
) -> None:
    store = skipping()
    spoil(store.objects)
    with pytest.raises(td.UntrustedError) as caught:
        ASK[ask](trusting(store), 2, tmp_path / "out")
    assert (caught.value.object, caught.value.rule) == (SECOND, "TD-SIG-012")
    assert not list((tmp_path / "out").glob("*.safetensors"))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda objects: unsign(objects, "chain.json"),
        lambda objects: by_another(objects, "chain.json"),
        lambda objects: objects.update({"chain.json": b"{"}),
        lambda objects: objects.update(
            {"chain.json": objects["chain.json"].replace(CHAIN.encode(), CHAIN[::-1].encode())}
        ),
    ],
    ids=["unsigned", "another key", "no JSON", "another id"],
)
def test_a_chain_object_that_no_trusted_key_signed(spoil: Callable[[dict[str, bytes]], object]) -> None:
    store = store_of()
    spoil(store.objects)
    with pytest.raises(td.UntrustedError) as caught:
        trusting(store)
    assert caught.value.object == "chain.json"


def test_two_objects_cannot_change_places() -> None:
    store = store_of()
    store.objects[FIRST], store.objects[SECOND] = store.objects[SECOND], store.objects[FIRST]
    for version in (1, 2):
        with pytest.raises(td.UntrustedError):
            trusting(store).load(version)
    sign_all(store.objects)  # and if a key holder signs that
    with pytest.raises(td.MalformedError) as caught:
        trusting(store).load(1)
    assert caught.value.rule == "TD-OBJ-004"


def test_trust_reaches_what_manifests_name() -> None:
    for prefix in ("packs/", "layouts/"):
        store = store_of(1)
        (name,) = (name for name in store.objects if name.startswith(prefix))
        store.objects[name] = store.objects[name].replace(b"a.weight", b"b.weight")[:-1] + b" "
        with pytest.raises(td.IntegrityError) as caught:
            trusting(store).load()
        assert caught.value.object == name


def test_a_signed_manifest_of_another_chain() -> None:
    store = store_of()
    data = store.objects[SECOND].replace(CHAIN.encode(), ANOTHER)
    store.objects[SECOND] = data
    sign(store.objects, SECOND)
    with pytest.raises(td.ConflictError) as caught:
        trusting(store).load(2)
    assert caught.value.rule == "TD-OBJ-011"


def test_what_is_unsigned_is_passed_over() -> None:
    store = store_of()
    unsign(store.objects, SECOND)
    chain = trusting(store)
    assert (chain.versions(), chain.newest()) == ([0, 1], 1)
    assert chain.load().equals(state(1))
    assert [row.version for row in chain.log()] == [0, 1]
    with pytest.raises(TimeoutError):
        chain.wait(2, timeout=0)
    sign(store.objects, SECOND)  # a holder of the key vouches for it later
    assert chain.wait(2, timeout=0) == 2
    assert chain.load().equals(state(2))


@pytest.mark.parametrize("lists", [True, False])
def test_what_has_too_many_bytes_is_not_signed(lists: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object that nobody may sign hides no version, and says nothing of a route."""
    monkeypatch.setattr(documents, "MAX_MANIFEST", 10_000)
    store = store_of()
    store.lists = lists  # type: ignore[misc]
    store.objects[SECOND] += b" " * 10_000
    sign(store.objects, SECOND)
    hint = json.dumps({"tensordelta": "1.0-rc.1", "chain": CHAIN, "version": 2}).encode()
    store.objects["latest.json"] = hint
    with pytest.raises(td.UntrustedError, match="more than 10000") as caught:
        trusting(store).load(2)
    assert (caught.value.object, caught.value.rule) == (SECOND, "TD-SIG-012")
    assert trusting(store).newest() == (1 if lists else None)
    assert trusting(store).load(1).equals(state(1))
    with pytest.raises(td.LimitError):
        td.open(store).load(2)


def test_a_signed_manifest_that_memory_cannot_hold_is_signed() -> None:
    store = store_of()
    store.objects[SECOND] += b" " * 1_000_000
    sign(store.objects, SECOND)
    chain = trusting(store, memory=1 << 20)
    assert chain.newest() == 2
    with pytest.raises(td.LimitError) as caught:
        chain.load(2)
    assert caught.value.rule == "TD-LIM-008"
    unsign(store.objects, SECOND)
    assert trusting(store, memory=1 << 20).newest() == 1


def test_versions_of_another_key_are_passed_over() -> None:
    store = store_of()
    by_another(store.objects, SECOND)
    chain = trusting(store)
    assert chain.newest() == 1 and chain.load().equals(state(1))
    assert next(trusting(store).follow(td.State.empty(), timeout=0)).version == 1


def test_the_search_for_the_newest_signed_version_ends() -> None:
    store = store_of(2)
    store.objects |= {manifest_name(version): b"{" for version in range(2, 65)}
    assert trusting(store).newest() == 1
    store.objects[manifest_name(65)] = b"{"
    with pytest.raises(td.UntrustedError) as caught:
        trusting(store).load()
    assert (caught.value.object, caught.value.rule) == (manifest_name(65), "TD-SIG-012")
    assert trusting(store).load(1).equals(state(1))


def test_planning_knows_of_what_is_signed_alone() -> None:
    assert trusting(skipping()).plan(2, 0).route == (SHORTCUT,)
    assert trusting(skipping(SHORTCUT)).plan(2, 0).route == (FIRST, SECOND)
    store = skipping()
    by_another(store.objects, SHORTCUT)
    assert trusting(store).plan(2, 0).route == (FIRST, SECOND)
    store.objects[SHORTCUT] = b"{"
    assert trusting(store).load(2).equals(state(2))
    # Around a version that is not signed, and not over it.
    assert trusting(skipping(FIRST)).plan(2).route == (manifest_name(0), SHORTCUT)
    with pytest.raises(td.MissingError) as caught:
        trusting(skipping(FIRST, SHORTCUT)).load(2)
    assert caught.value.rule == "TD-RTE-006"


def test_an_unsigned_manifest_says_nothing_of_the_state_held() -> None:
    store = store_of()
    store.objects[FIRST] = line([little(), little(7)]).objects[FIRST]
    held = state(1)
    held.sums()
    held.version, held.chain = 1, CHAIN
    trusting(store).prepare(held, 2).apply()
    assert held.equals(state(2))


def test_several_keys() -> None:
    store = store_of()
    by_another(store.objects, SECOND)
    assert trusting(store, PUBLIC, OTHER_PUBLIC).load().equals(state(2))
    with pytest.raises(td.UntrustedError):
        trusting(store, OTHER_PUBLIC)
    # A broken signature of one key does not keep another key's from counting.
    store.objects[sig(store.objects, SECOND)] = b"{"
    assert trusting(store, PUBLIC, OTHER_PUBLIC).load().equals(state(2))


def test_as_many_keys_as_are_asked_for() -> None:
    store, both = store_of(), (PUBLIC, OTHER_PUBLIC)
    sign_all(store.objects, SECOND, secret=OTHER_SECRET)
    chain = trusting(store, *both, threshold=2)
    assert chain.newest() == 1 and chain.load().equals(state(1))
    with pytest.raises(td.UntrustedError, match="1 of the 2"):
        chain.load(2)
    for twice in ((PUBLIC, PUBLIC), (PUBLIC,)):  # a key that is given twice is one key
        with pytest.raises(ValueError, match="2 of 1"):
            trusting(store, *twice, threshold=2)
    store.objects[sig(store.objects, SECOND, OTHER_SECRET)] = signature_of(SECOND, store.objects[SECOND])
    with pytest.raises(td.UntrustedError):  # the first key's signature under the name of the second's
        chain.load(2)
    sign(store.objects, SECOND, OTHER_SECRET)
    assert chain.load().equals(state(2)) and chain.verify(deep=True).ok


def test_without_keys_signature_objects_are_ignored() -> None:
    store = store_of()
    for name in [name for name in store.objects if name.startswith("signatures/")]:
        store.objects[name] = b"garbage"
    chain = td.open(store, threads=1)
    assert chain.versions() == [0, 1, 2] and chain.load().equals(state(2)) and chain.verify(deep=True).ok
    assert chain.allow_rollback
    assert not any(name.startswith("signatures/") for name in store.reads)


def test_an_object_that_was_altered_on_its_way_is_read_again() -> None:
    class Far(MemoryStore):
        remote = True
        spoilt: set[str] = set()  # noqa: RUF012

        def open(self, name: str) -> Any:
            blob = super().open(name)
            if is_member(name) and name not in self.spoilt:
                self.spoilt.add(name)
                blob._data = blob._data[:-1] + b" "
            return blob

    chain = trusting(Far(dict(_line(3))))
    assert chain.manifest(2).version == 2 and Far.spoilt == {"chain.json", SECOND}


# -- no way back -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", [each for each in ASK if each not in ("manifest", "layout", "plan", "plan from")])
def test_an_older_version_is_refused(ask: str, tmp_path: Path) -> None:
    chain = trusting(store_of())
    chain.load(2)
    with pytest.raises(td.UntrustedError) as caught:
        ASK[ask](chain, 1, tmp_path / "out")
    assert (caught.value.object, caught.value.rule) == (FIRST, "TD-SIG-005")
    ASK[ask](chain, 2, tmp_path / "out")
    chain.allow_rollback = True
    ASK[ask](chain, 1, tmp_path / "out")


def test_looking_at_older_versions_is_no_way_back() -> None:
    chain = trusting(store_of())
    chain.load()
    assert chain.manifest(0).version == 0 and chain.plan(1).version == 1 and chain.verify(deep=True).ok
    assert len(chain.log()) == 3


def test_a_newest_version_that_is_older_than_before() -> None:
    store = store_of()
    chain = trusting(store)
    held = chain.load()
    del store.objects[SECOND]
    for each in (chain, trusting(store)):  # by what the chain remembers, and by what the state does
        with pytest.raises(td.UntrustedError) as caught:
            each.prepare(held)
        assert caught.value.rule == "TD-SIG-005"
    assert held.equals(state(2))
    trusting(store, allow_rollback=True).prepare(held).apply()
    assert held.equals(state(1))


def test_only_what_is_applied_is_held() -> None:
    chain = trusting(store_of())
    empty = td.State.empty()
    update = chain.prepare(empty, 2)
    assert chain.load(1).equals(state(1))
    update.apply()
    with pytest.raises(td.UntrustedError):
        chain.load(1)
    update.undo()
    with pytest.raises(td.UntrustedError):
        chain.load(1)


def test_an_update_that_is_applied_late_does_not_lead_back() -> None:
    chain = trusting(store_of())
    late = chain.prepare(td.State.empty(), 1)
    chain.load(2)
    late.apply()
    with pytest.raises(td.UntrustedError):
        chain.load(1)


def test_a_pull_is_remembered_by_the_chain_as_well(tmp_path: Path) -> None:
    chain = trusting(store_of())
    chain.pull(tmp_path / "out")
    with pytest.raises(td.UntrustedError):
        chain.load(1)


def test_going_back_once_is_not_for_ever() -> None:
    chain = trusting(store_of(), allow_rollback=True)
    chain.load(2)
    chain.load(1)
    chain.allow_rollback = False
    assert chain.load(1).equals(state(1))  # what was gone back to is what is held
    with pytest.raises(td.UntrustedError):
        chain.load(0)


def anew(store: MemoryStore, model: dict[str, Any]) -> None:
    """Publish version 1 once more, signed, with another state."""
    builder = line([walk(1)[0], model])
    sign_all(builder.objects)
    store.objects |= builder.objects


@pytest.mark.parametrize("other", ["fingerprint", "layout"])
def test_a_version_that_is_another_than_it_was(other: str, tmp_path: Path) -> None:
    model = walk(2)[1]
    model = little(9) if other == "fingerprint" else model | {"a.weight": model["a.weight"]._replace(shape=(6, 4))}
    store = store_of(2)
    chain = trusting(store)
    held = chain.load(1)
    chain.pull(tmp_path / "out", 1)
    anew(store, model)
    for act in (
        lambda: chain.load(1),
        lambda: chain.prepare(held, 1),
        lambda: chain.pull(tmp_path / "out"),
        lambda: trusting(store).pull(tmp_path / "out"),  # another process
        lambda: trusting(store).prepare(held, 1),  # a reader that is new, and a state that remembers
        lambda: trusting(store).prepare(held.copy(), 1),
        lambda: trusting(store, allow_rollback=True).prepare(held, 1),
        lambda: trusting(store, allow_rollback=True).pull(tmp_path / "out", 1),
    ):
        with pytest.raises(td.UntrustedError) as caught:
            act()
        assert (caught.value.object, caught.value.rule) == (FIRST, "TD-SIG-006")
    assert trusting(store).load(1).equals(as_state(model))  # whoever has held nothing cannot know
    assert td.Checkout(tmp_path / "out").verify(threads=1) == (1, [])


def test_a_pulled_folder_remembers(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    trusting(store_of()).pull(folder, 2)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    for version, store in ((1, store_of()), (None, store_of(2))):
        with pytest.raises(td.UntrustedError) as caught:
            trusting(store).pull(folder, version)
        assert caught.value.rule == "TD-SIG-005"
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert td.open(store_of(), threads=1).pull(folder, 1).version == 1  # without keys nothing is promised
    assert trusting(store_of()).pull(folder, 2).version == 2
    assert trusting(store_of(), allow_rollback=True).pull(folder, 1).version == 1
    assert trusting(store_of()).pull(folder, 1).route == ()
    with pytest.raises(td.UntrustedError):
        trusting(store_of()).pull(folder, 0)


def test_the_age_of_the_newest_version() -> None:
    def aged(seconds: float, version: int = 2) -> MemoryStore:
        store = store_of()
        name = manifest_name(version)
        document = json.loads(store.objects[name])
        when = time.gmtime(time.time() - seconds)
        document["created"] = time.strftime("%Y-%m-%dT%H:%M:%S.5Z", when)
        store.objects[name] = json.dumps(document).encode()
        sign_all(store.objects)
        return store

    for ask in (lambda chain: chain.load(), lambda chain: chain.prepare(state(0)), lambda chain: chain.manifest()):
        ask(trusting(aged(100), max_age=200))
        ask(trusting(aged(-500), max_age=1))  # a clock that is ahead
        with pytest.raises(td.UntrustedError) as caught:
            ask(trusting(aged(300), max_age=200))
        assert (caught.value.object, caught.value.rule) == (SECOND, "TD-SIG-008")
    old = trusting(aged(300), max_age=200)
    assert old.load(2).equals(state(2)), "a version that was asked for by number is not withheld"
    assert [fault.rule for fault in old.verify().faults] == ["TD-SIG-008"]
    assert trusting(aged(100), max_age=200).verify().ok
    for created in ("0000-02-30T00:00:00Z", "2026-02-30T23:59:60.123456789Z"):  # no days of the calendar
        store = aged(0)
        store.objects[SECOND] = store.objects[SECOND].replace(
            json.loads(store.objects[SECOND])["created"].encode(), created.encode()
        )
        sign_all(store.objects)
        with pytest.raises(td.UntrustedError):
            trusting(store, max_age=1).load()
        trusting(store, max_age=1e12).load()


# -- verifiers ---------------------------------------------------------------------------------------------------------


def test_verify_tells_what_is_not_signed() -> None:
    store = skipping(manifest_name(0), SHORTCUT)
    by_another(store.objects, FIRST)
    store.objects[sig(store.objects, SECOND)] = b"{"
    assert td.open(store, threads=1).verify(deep=True).ok
    found = trusting(store).verify()
    assert list(found.versions) == [0, 1, 2]
    assert {(fault.name, fault.object, fault.rule) for fault in found.faults} == {
        ("untrusted", manifest_name(0), "TD-SIG-012"),
        ("untrusted", FIRST, "TD-SIG-012"),
        ("untrusted", SECOND, "TD-SIG-012"),
        ("untrusted", SHORTCUT, "TD-SIG-012"),
    }
