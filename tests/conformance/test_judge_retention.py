"""The judge of writers: what a collector may remove, and what pins keep."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from judged import STATES, Step, kept_chain, states

from generate import signing
from generate.builder import manifest_name, shortcut_name
from generate.model import CHAIN, FOREIGN
from generate.scenes import line
from tensordelta_conformance.judge import PROTOCOL, Snapshot


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


def pack_of(version: int) -> str:
    return kept_chain().pack_names(version)[0]


DROPPED = [manifest_name(version) for version in (0, 1, 2)]


def sums_of(version: int) -> str:
    return f"fingerprints/{kept_chain().manifests[version]['tensor_fingerprints']}.bin"


def test_collected(root: Path) -> None:
    packs = [pack_of(version) for version in range(4)]
    assert collected(root, *DROPPED, *packs, sums_of(0), keep=[3]) == set()


def test_a_version_that_stays_without_a_route(root: Path) -> None:
    assert collected(root, manifest_name(0), pack_of(0), keep=[1, 3]) == {"TD-RET-001"}


def test_chain_json_is_gone(root: Path) -> None:
    assert "TD-RET-001" in collected(root, "chain.json", keep=[0, 1, 2, 3])


def test_a_version_to_be_kept_is_gone(root: Path) -> None:
    assert collected(root, *(manifest_name(version) for version in (1, 2)), keep=[2, 3]) == {PROTOCOL}


def test_the_newest_version_is_gone(root: Path) -> None:
    gone = (manifest_name(3), shortcut_name(3, None))
    assert collected(root, *gone, keep=[0, 1, 2]) == {"TD-RET-016"}


@pytest.mark.parametrize("kind", ["layout", "fingerprints", "file", "pack"])
def test_an_object_that_is_still_named(kind: str, root: Path) -> None:
    builder = kept_chain()
    manifest = json.loads(builder.get(shortcut_name(3, None)))
    name = {
        "layout": f"layouts/{manifest['layout']}.json",
        "fingerprints": f"fingerprints/{manifest['tensor_fingerprints']}.bin",
        "file": manifest["files"][0]["path"],
        "pack": manifest["packs"][0]["path"],
    }[kind]
    assert "TD-RET-011" in collected(root, name, keep=[3])


def test_layouts_stay_for_ever(root: Path) -> None:
    builder = kept_chain()
    other = builder.layout(STATES[0] | {"more": STATES[0]["a.weight"]})
    step = Step(root, builder)
    (root / f"layouts/{other}.json").unlink()
    request = {"op": "collect", "chain": str(root), "keep": [0, 1, 2, 3], "grace": 0}
    assert step.rules(request=request, answer={"ok": True}) == {"TD-RET-011"}


def retired(
    root: Path, *, age: float, copied: float | None, deleted: bool, grace: float = 100, other: bytes = b""
) -> set[str]:
    """What breaks when versions 0 to 2, and the pack of 1, of this age, go, with copies of another age."""
    builder = kept_chain()
    builder.write(root)
    for name in builder.objects:
        os.utime(root / name, (time.time() - age,) * 2)
    step = Step(root)
    step.published = states(builder.models)
    for name in DROPPED:
        if copied is not None:
            path = root / "retired" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((root / name).read_bytes() + other)
            os.utime(path, (time.time() - copied,) * 2)
        (root / name).unlink()
    if deleted:
        (root / pack_of(1)).unlink()
    request = {"op": "collect", "chain": str(root), "keep": [3], "grace": grace}
    return step.rules(request=request, answer={"ok": True})


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"age": 50, "copied": 0, "deleted": False}, set()),
        ({"age": 150, "copied": 0, "deleted": False}, set()),
        ({"age": 150, "copied": 0, "deleted": True}, {"TD-RET-011"}),
        ({"age": 150, "copied": 110, "deleted": True}, set()),
        ({"age": 50, "copied": 110, "deleted": True}, {"TD-RET-011"}),
        ({"age": 150, "copied": None, "deleted": False}, {"TD-RET-011"}),
        ({"age": 150, "copied": None, "deleted": True, "grace": 0}, set()),
        ({"age": 150, "copied": 0, "deleted": False, "other": b" "}, {"TD-RET-011"}),
    ],
)
def test_copies(how: dict[str, Any], expected: set[str], root: Path) -> None:
    assert retired(root, **how) == expected


def test_a_copy_goes_when_it_is_old_and_its_original_is_gone(root: Path) -> None:
    for age, original, expected in ((150, False, set()), (50, False, {"TD-RET-011"}), (150, True, {"TD-RET-011"})):
        builder = kept_chain()
        name = manifest_name(3 if original else 7)
        builder.put(f"retired/{name}", builder.get(manifest_name(3)))
        folder = root / f"{age}-{original}"
        builder.write(folder)
        os.utime(folder / f"retired/{name}", (time.time() - age,) * 2)
        step = Step(folder)
        (folder / f"retired/{name}").unlink()
        request = {"op": "collect", "chain": str(folder), "keep": [0, 1, 2, 3], "grace": 100}
        assert step.rules(request=request, answer={"ok": True}) == expected


def test_a_signature_stays_with_what_it_signs(root: Path) -> None:
    builder = signing.signed(kept_chain())
    kept, gone = (signing.signature_name(builder, manifest_name(version)) for version in (3, 2))
    for signature, expected in ((gone, set()), (kept, {"TD-RET-011"})):
        folder = root / signature[11:15]
        step = Step(folder, builder)
        for name in (*DROPPED, signature):
            (folder / name).unlink()
        request = {"op": "collect", "chain": str(folder), "keep": [3], "grace": 0}
        assert step.rules(request=request, answer={"ok": True}) == expected


def test_a_manifest_deleted_after_its_pack(root: Path) -> None:
    step = Step(root, kept_chain())
    (root / pack_of(1)).unlink()
    killed = Snapshot.of(root)
    for name in DROPPED:
        (root / name).unlink()
    request = {"op": "collect", "chain": str(root), "keep": [3], "grace": 0}
    assert step.rules(request=request, answer={"ok": True}, between=[killed]) == {"TD-RET-011"}
    assert step.rules(request=request, answer={"ok": True}) == set()


# -- pins --------------------------------------------------------------------------------------------------------------


def pin(**members: Any) -> bytes:
    """A pin of version 1; `...` leaves a member out."""
    document = {"tensordelta": "1.0-rc.1", "chain": CHAIN, "version": 1} | members
    return json.dumps({name: value for name, value in document.items() if value is not ...}).encode()


def collected_with_a_pin(
    root: Path, data: bytes, *, age: float = 0, keep: tuple[int, ...] = (), name: str = "pins/a.json", **how: Any
) -> set[str]:
    """What a collector that keeps version 3, and `keep`, breaks while there is a pin."""
    grace = how.pop("grace", 0)
    builder = kept_chain()
    builder.put(name, data)
    step = Step(root, builder)
    os.utime(root / name, (time.time() - age,) * 2)
    step.before = Snapshot.of(root)
    for version in {0, 1, 2} - set(keep):
        (root / manifest_name(version)).unlink()
    if how.pop("unpinned", False):
        (root / name).unlink()
    request = {"op": "collect", "chain": str(root), "keep": [3], "grace": grace}
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
    assert "TD-RET-018" in collected_with_a_pin(root / "a", data, grace=100, age=50)
    assert "TD-RET-018" not in collected_with_a_pin(root / "b", data, grace=100, age=150)
    assert collected_with_a_pin(root / "c", data, keep=(0, 1, 2), grace=100) == set()
    assert collected_with_a_pin(root / "d", data, name="pins/clock-1") == set()


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
