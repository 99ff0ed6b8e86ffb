"""The judge of writers: a good chain breaks nothing and is read, and no damage stops the judge."""

from __future__ import annotations

import hashlib
import importlib
import json
import pkgutil
import shutil
from pathlib import Path

import pytest
from judged import STATES, kept_chain, rules, state_of, states

from generate import areas, cases
from generate.builder import digest, manifest_name
from generate.chains import contents, encodings, paths
from generate.good import GOOD, Good
from generate.model import Random, tensor
from generate.scenes import line
from generate.standard import flipped, replaced, setting, standard
from tensordelta_conformance.judge import Snapshot, judge, read_version
from tensordelta_conformance.small_reader.packs import read_tensors
from tensordelta_conformance.small_reader.rejection import Rejection

assert contents and encodings and paths  # their good chains are registered by now


#: Chains that a reader accepts and that a writer of this version may not write, and what it breaks by them.
NOT_TO_BE_WRITTEN = {
    "plain-with-sources": {"TD-WRT-004"},  # no place has the bytes
    "files": {"TD-OBJ-002", "TD-PTH-007"},
    "unknown-fields": {"TD-PCK-007"},
    "at-the-limits": {"TD-OBJ-002", "TD-PTH-006"},
    "listing": {"TD-OBJ-002", "TD-WRT-004"},
    "hint-that-is-garbage": {"TD-WRT-004"},
    "hint-of-another-chain": {"TD-WRT-004"},
    "shortcuts-that-do-not-count": {"TD-MAN-027", "TD-WRT-004"},
    "unknown-feature-of-the-manifest": {"TD-WRT-004"},
    "retention": {"TD-OBJ-012", "TD-WRT-004"},
    "damaged-packs-with-a-way-around": {"TD-OBJ-002", "TD-OBJ-012", "TD-WRT-004"},
}


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
    with pytest.raises(Rejection) as caught:
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
    if not steps or not isinstance(steps[0]["expect"].get("state"), str) or "holders" in steps[0]["input"]:
        return
    to, held = steps[0]["input"]["to"], steps[0]["input"]["held"]
    expected = read_tensors(files[steps[0]["expect"]["state"]])
    try:
        state = read_version(folder, max(Snapshot.of(folder).versions()) if to is None else to)
    except Rejection as fault:
        assert held is not None, (each.id, fault)
        assert manifest_name(held["version"]) not in each.objects, (each.id, fault)
        return
    if "tensors" in steps[0]["input"]:
        state = {name: tensor for name, tensor in state.items() if name in expected}
    assert state == expected, each.id


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
    document = {"tensordelta": "1.0-rc.1", "tensors": [{"name": "a", "dtype": "U8", "shape": [2**48]}]}
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
