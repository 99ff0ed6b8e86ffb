"""What may be deleted (SPEC.md section 13), and in which order things come and go (sections 4 and 11)."""

from __future__ import annotations

import time
from collections.abc import Iterator

from ..small_reader.documents import Manifest, manifest_name, parse_manifest
from ..small_reader.rejection import Rejection
from .case import Case
from .pins import pinned
from .signatures import message_digest
from .snapshot import BY_DIGEST, CHANGEABLE, Snapshot, is_temporary, kind_of
from .violations import PROTOCOL

GRACE = 24 * 3600
"""The grace period of a chain that names none."""

EDGES = ("manifest", "shortcut")
DELETED = ("pack", "fingerprints", "file", "signature", "copy")
"""The kinds that a collector deletes once they are old and nothing holds them."""


def check_retention(case: Case) -> None:
    """Objects that are gone, and objects that came or went too early."""
    if case.operation != "collect":
        _check_unasked(case)
    for name in case.removed("layout"):
        case.findings.add("TD-RET-011", name, "it is gone: layouts stay for ever")
    for snapshot in (*case.between, case.now):
        _check_held(case, snapshot)
        _check_copies(case, snapshot)
        _check_order(case, snapshot)
    _check_grace(case)
    if case.removed():
        _check_routes(case)
    newest = case.before.versions()[-1:]
    if newest and manifest_name(newest[0]) not in case.now.objects:
        case.findings.add("TD-RET-016", manifest_name(newest[0]), "it was the newest version, and is gone")
    _check_fresh(case)


def grace_of(case: Case) -> float:
    """The grace period of the step, in seconds."""
    return float(case.request.get("grace", GRACE))


def _check_unasked(case: Case) -> None:
    """Nothing goes unless a collector is asked: objects that no Writer of the chain made included."""
    for name in sorted(case.before.objects.keys() - case.now.objects.keys()):
        if kind_of(name) not in CHANGEABLE and not is_temporary(name):
            case.findings.add("TD-OBJ-003", name, "it is gone, and nobody asked to collect")


def _named_by(manifest: Manifest) -> set[str]:
    """The objects under the root that a manifest or shortcut names, without packs."""
    sums = set() if manifest.tensor_fingerprints is None else {f"fingerprints/{manifest.tensor_fingerprints}.bin"}
    return {f"layouts/{manifest.layout}.json", *sums, *(file.path for file in manifest.files)}


def _edges(snapshot: Snapshot, grace: float = 0) -> Iterator[tuple[str, Manifest]]:
    """The manifests and shortcuts that stood there, or of which a young copy did, as far as they can be read."""
    for name, data in snapshot.edges.items():
        original = name.removeprefix("retired/")
        if original == name or time.time() - snapshot.objects[name].modified / 1e9 < grace:
            try:
                yield original, parse_manifest(data, original)
            except Rejection:
                continue  # it names nothing that can be told


def _held(snapshot: Snapshot, grace: float) -> set[str]:
    """What a collector may not delete, whatever its age; of signatures the digests that their names begin with."""
    edges = list(_edges(snapshot, grace))
    versions = {manifest.version for name, manifest in edges if kind_of(name) == "manifest"}
    held = set()
    for _, manifest in edges:
        held |= _named_by(manifest)
        if manifest.base is None or manifest.base.version in versions:
            held |= {pack.path for pack in manifest.packs if pack.path is not None}
    return held


def _signed(case: Case, snapshot: Snapshot, grace: float) -> set[str]:
    names = [name for name, _ in _edges(snapshot, grace)]
    data = {name: snapshot.edges.get(name, snapshot.edges.get(f"retired/{name}", b"")) for name in names}
    if "chain.json" in case.folder:
        data["chain.json"] = case.folder["chain.json"]
    return {message_digest(name, each) for name, each in data.items()}


def _check_held(case: Case, snapshot: Snapshot) -> None:
    """TD-RET-011: what something holds that stands there, or has a young copy."""
    gone = [name for name in case.before.names(*DELETED) if name not in snapshot.objects]
    if not gone:
        return
    held, signed = _held(snapshot, grace_of(case)), _signed(case, snapshot, grace_of(case))
    for name in gone:
        if name in held or (kind_of(name) == "signature" and name[11:75] in signed):
            case.findings.add("TD-RET-011", name, "it is gone, and what names or is signed by it was there")
        if kind_of(name) == "copy" and name.removeprefix("retired/") in snapshot.objects:
            case.findings.add("TD-RET-011", name, "it is gone, and what it is a copy of was there")


def _check_grace(case: Case) -> None:
    """TD-RET-011, by the times of modification before the step."""
    grace = grace_of(case)
    for name in case.removed(*DELETED):
        age = time.time() - case.before.objects[name].modified / 1e9
        if age < grace:
            message = f"it was {age:.0f} seconds old, and the grace period is {grace} seconds"
            case.findings.add("TD-RET-011", name, message)


def _check_copies(case: Case, snapshot: Snapshot) -> None:
    """TD-RET-011: what is dropped is copied first, if anybody may be at work."""
    if case.operation != "collect" or not grace_of(case):
        return
    for name in case.before.names(*EDGES):
        if name not in snapshot.objects:
            copy = snapshot.objects.get(f"retired/{name}")
            if copy is None or copy.sha256 != case.before.objects[name].sha256:
                case.findings.add("TD-RET-011", name, "it was dropped, and had no copy with its bytes")


def _stays(case: Case, version: int) -> bool:
    """Whether a version that is there is to stay: a collector that was killed may have been about to drop it."""
    killed = case.killed and case.operation == "collect"
    return not killed or version in case.request.get("keep", []) or version in pinned(case)


def _check_routes(case: Case) -> None:
    """TD-RET-001: each version that stays is still read, from nothing."""
    for version in case.now.versions():
        name = manifest_name(version)
        if not _stays(case, version):
            continue
        try:
            state = case.chain.version(version)
        except Rejection as fault:
            case.findings.add("TD-RET-001", name, f"no route leads to it any more: {fault} ({fault.object})")
            continue
        published = case.published.get(version)
        if published is not None and state != published:
            case.findings.add("TD-RET-001", name, "the route that stays leads to another state")


def _check_fresh(case: Case) -> None:
    """TD-RET-012: a manifest names nothing that lay there before, unless another one named it that stood there."""
    for snapshot in (case.before, *case.between):
        shared = {object for _, edge in _edges(snapshot) for object in _everything(edge)}
        for name, manifest in _edges(case.now):
            if name in snapshot.objects or name not in case.now.objects:
                continue
            for object in sorted(_everything(manifest) & set(snapshot.objects) - shared):
                if kind_of(object) != "layout":
                    case.findings.add("TD-RET-012", object, f"it lay there already, and {name} names it")


def _everything(manifest: Manifest) -> set[str]:
    return _named_by(manifest) | {pack.path for pack in manifest.packs if pack.path is not None}


def _check_order(case: Case, snapshot: Snapshot) -> None:
    """What may not stand there without another object: at the end, and where the step was killed."""
    objects = snapshot.objects
    others = [name for name in snapshot.names(*BY_DIGEST, *EDGES) if name not in case.before.objects]
    if others and "chain.json" not in objects:
        case.findings.add("TD-OBJ-016", others[0], "it was there before chain.json")
    for name in snapshot.names("shortcut"):
        new = name not in case.before.objects
        if new and manifest_name(int(name[10:22])) not in objects:
            case.findings.add("TD-MAN-026", name, "it was there before its version")


def check_kept(case: Case) -> None:
    """The versions that a request asks to keep."""
    for version in case.request.get("keep", []):
        if manifest_name(version) not in case.now.objects:
            case.findings.add(PROTOCOL, manifest_name(version), "it was to be kept, and is gone")
