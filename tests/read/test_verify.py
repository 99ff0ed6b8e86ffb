"""The verifier: nothing on good chains, every fault of broken ones, and no fault where retention took its share."""

from __future__ import annotations

import gallery
import pytest
from gallery import BROKEN, GOOD, Broken, Builder, Good, open_chain

import tensordelta as td
from tensordelta.read.verify import Verification

#: Faults that are no fault of the chain: what was asked for is not there, and need not be.
NO_FAULT = set(
    "manifest-missing no-versions version-10-12 version-in-a-gap version-minus-one version-that-never-was".split()
)
#: Errors that follow from the fault: what cannot be read leads nowhere, and a base that is lost cannot be proven.
FOLLOWING = {"missing"}


@pytest.mark.parametrize("chain", [each for each in GOOD if each.clean], ids=lambda each: each.name)
def test_good_chains_have_no_fault(chain: Good) -> None:
    for deep in (False, True):
        found = open_chain(chain.builder).verify(deep=deep)
        assert found.ok and list(found.faults) == [], repr(found)
        names = sorted(name for name in chain.builder.objects if name.startswith("manifests/"))
        assert [gallery.manifest_name(version) for version in found.versions] == names


@pytest.mark.parametrize("fault", [each for each in BROKEN if each.name not in NO_FAULT], ids=lambda each: each.name)
def test_a_fault_is_found_under_its_name(fault: Broken) -> None:
    """Deep verification reports what a reader would, and nothing that does not follow from it."""
    builder = fault.builder
    try:
        found = open_chain(builder).verify(deep=True)
    except td.TensorDeltaError as error:
        assert error.object == "chain.json" and error.name in fault.errors
        return
    assert not found.ok
    assert {each.name for each in found.faults} & {*fault.errors}, repr(found)
    assert {each.name for each in found.faults} <= {*fault.errors, *FOLLOWING}, repr(found)
    if fault.reader:
        assert {each.rule for each in found.faults} & fault.rules, repr(found)


@pytest.mark.parametrize("name", sorted(NO_FAULT))
def test_what_was_never_there_is_no_fault(name: str) -> None:
    assert open_chain(gallery.broken_chain(name)).verify(deep=True).ok


def test_a_reader_does_not_see_what_only_the_verifier_reads() -> None:
    """Files and fingerprints objects are not needed for a whole state."""
    for fault in BROKEN:
        if not fault.reader:
            builder = fault.builder
            assert open_chain(builder).load(1).equals(gallery.as_state(builder.models[1])), fault.name


@pytest.mark.parametrize(
    ("name", "shows"),
    [
        ("pack-altered", True),
        ("layout-altered", True),
        ("pack-tensors-empty", True),
        ("feature-unknown", True),
        ("fingerprints-sum-wrong", True),
        ("fingerprint-wrong", False),
    ],
)
def test_what_shows_without_decoding_and_what_does_not(name: str, shows: bool) -> None:
    assert open_chain(gallery.broken_chain(name)).verify().ok is not shows


# -- chains whose faults are several, or none -----------------------------------------------------------------------


def test_every_faulty_object_is_named() -> None:
    rng = gallery.Random(1)
    builder = Builder()
    model = gallery.small(rng)
    layout = builder.layout(model)
    files = [builder.file("a", b"a"), builder.file("b", b"b")]
    packs = [gallery.of_chunks([each], layout) for each in gallery.full_chunks(model)]
    builder.edge(0, model, packs, files=files)
    builder.full(0, model, shortcut="")
    spoiled = [*builder.pack_names(0)[:2], files[1]["path"]]
    spoiled.append(f"fingerprints/{builder.manifests[0]['tensor_fingerprints']}.bin")
    for name in spoiled:
        builder.change(name, gallery.flipped(0))
    found = open_chain(builder).verify()
    assert {fault.name for fault in found.faults} == {"integrity"}
    named = [fault.object for fault in found.faults]
    assert len(named) == len(spoiled) and all(any(name in each for each in named) for name in spoiled)


def test_an_object_of_many_manifests_is_reported_once() -> None:
    builder = gallery.good_chain("shortcuts")
    chain = open_chain(builder)
    layout = f"layouts/{builder.manifests[0]['layout']}.json"
    chain.store.objects[layout] += b" "
    found = chain.verify(deep=True)
    assert [(fault.object, fault.rule) for fault in found.faults] == [(layout, "TD-LAY-008")]


def test_an_open_chain_is_verified_as_it_is_now() -> None:
    """What was read before is read again."""
    chain = open_chain(gallery.good_chain("shortcuts"))
    chain.load(6)
    assert chain.verify().ok
    chain.store.objects[gallery.manifest_name(6)] = b"{}"
    assert {fault.name for fault in chain.verify().faults} >= {"malformed"}


def test_collected_packs_are_no_fault_while_a_shortcut_is_left() -> None:
    rng = gallery.Random(1)
    builder = Builder()
    model = gallery.small(rng)
    builder.full(0, model)
    for version in range(1, 4):
        model = gallery.stepped(rng, model)
        builder.delta(version, model, version - 1)
    shortcut = builder.full(2, builder.models[2], shortcut="")["packs"][0]["path"]
    for version in (1, 2):
        builder.remove(builder.pack_names(version)[0])
    found = open_chain(builder).verify(deep=True)
    assert [(fault.name, fault.object) for fault in found.faults] == [("missing", builder.pack_names(1)[0])]
    builder.remove(gallery.manifest_name(1))  # a version that was dropped, packs and all
    assert open_chain(builder).verify(deep=True).ok
    for version in (2, 3):
        assert open_chain(builder).load(version).equals(gallery.as_state(builder.models[version]))
    lost = dict(builder.objects)
    builder.remove(shortcut)
    found = open_chain(builder).verify()
    assert {fault.name for fault in found.faults} == {"missing"}
    assert {fault.object for fault in found.faults} >= {shortcut}
    builder.objects = lost
    builder.change(shortcut, gallery.flipped(-1))
    found = open_chain(builder).verify()
    assert {fault.name for fault in found.faults} == {"integrity", "missing"}, "version 2 has no route any more"


@pytest.mark.parametrize("what", ["file", "fingerprints"])
def test_what_retention_keeps_is_missed_though_a_shortcut_is_left(what: str) -> None:
    """Packs may go, files and fingerprints objects of a manifest that stays may not."""
    builder = gallery.standard()
    builder.full(1, builder.models[1], shortcut="")
    own = builder.manifests[1]
    builder.remove(own["files"][0]["path"] if what == "file" else f"fingerprints/{own['tensor_fingerprints']}.bin")
    found = open_chain(builder).verify()
    assert [fault.name for fault in found.faults] == ["missing"]


def test_progress_and_what_is_shown() -> None:
    seen: list[tuple[int, int]] = []
    chain = open_chain(gallery.good_chain("shortcuts"))
    found = chain.verify(progress=lambda done, total: seen.append((done, total)))
    count = sum(name.startswith(("manifests/", "shortcuts/")) for name in chain.store.objects)
    assert seen == [(done, count) for done in range(1, count + 1)]
    assert found.facts() == {"ok": True, "versions": list(range(7)), "faults": []}
    assert "no fault" in repr(found) and "7 versions" in repr(found)
    found = open_chain(gallery.broken_chain("pack-altered")).verify()
    fault = found.faults[0]
    assert isinstance(found, Verification) and found.facts()["ok"] is False
    assert found.facts()["faults"] == [
        {"error": "integrity", "object": fault.object, "rule": "TD-MAN-013", "message": str(fault)}
    ]
    assert "integrity" in repr(found) and "TD-MAN-013" in found._repr_html_()
