"""What may be deleted (SPEC.md section 13), and in which order things come and go (sections 4, 11 and 14)."""

from __future__ import annotations

import time

from ..small_reader.documents import Manifest, manifest_name
from ..small_reader.rejection import Rejection
from .case import Case
from .pins import pinned
from .snapshot import BY_DIGEST, CHANGEABLE, Snapshot, is_temporary, kind_of
from .violations import PROTOCOL

GRACE = 24 * 3600


def check_retention(case: Case) -> None:
    """Objects that are gone, and objects that came or went too early."""
    if case.operation != "collect":
        _check_unasked(case)
    _check_grace(case)
    _check_named(case)
    if case.removed():
        _check_routes(case)
    _check_order_of_deletes(case)
    _check_uploads(case)
    for snapshot in (*case.between, case.now):
        _check_order(case, snapshot)


def _check_unasked(case: Case) -> None:
    """Nothing goes unless a collector is asked: objects that no Writer of the chain made included."""
    for name in sorted(case.before.objects.keys() - case.now.objects.keys()):
        if kind_of(name) not in CHANGEABLE and not is_temporary(name):
            case.findings.add("TD-OBJ-003", name, "it is gone, and nobody asked to collect")


def named_by(manifest: Manifest) -> set[str]:
    """The objects under the root that a manifest or shortcut names."""
    layouts = {manifest.layout} if manifest.base is None else {manifest.layout, manifest.base.layout}
    sums = set() if manifest.tensor_fingerprints is None else {f"fingerprints/{manifest.tensor_fingerprints}.bin"}
    packs = {pack.path for pack in manifest.packs if pack.path is not None}
    files = {file.path for file in manifest.files}
    return {f"layouts/{digest}.json" for digest in layouts} | sums | packs | files


def _manifests(case: Case, names: list[str]) -> dict[str, Manifest]:
    """Those of the manifests and shortcuts that can be read, by name."""
    found = {}
    for name in names:
        try:
            found[name] = case.chain.manifest(name)
        except Rejection:
            continue  # it names nothing that can be told
    return found


def _stays(case: Case, version: int) -> bool:
    """Whether a version that is there is to stay: a collector that was killed may have been about to drop it."""
    killed = case.killed and case.operation == "collect"
    return not killed or version in case.request.get("keep", []) or version in pinned(case)


def _check_grace(case: Case) -> None:
    """TD-RET-003, by the times of modification before the step."""
    grace = case.request.get("grace", GRACE)
    for name in case.removed(*BY_DIGEST):
        age = time.time() - case.before.objects[name].modified / 1e9
        if age < grace:
            message = f"it was {age:.0f} seconds old, and the grace period is {grace} seconds"
            case.findings.add("TD-RET-003", name, message)


def _check_named(case: Case) -> None:
    """TD-RET-004: a layout, fingerprints object or file that is still named."""
    gone = set(case.removed("layout", "fingerprints", "file"))
    for name, manifest in _manifests(case, case.now.names("manifest", "shortcut")).items():
        if not _stays(case, manifest.version):
            continue
        for object in sorted(named_by(manifest) & gone):
            case.findings.add("TD-RET-004", object, f"{name} names it, and it is gone")


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


def _check_order_of_deletes(case: Case) -> None:
    """TD-RET-002: while anything of section 13 was gone, no manifest stood that was to go."""
    dropped = set(case.removed("manifest", "shortcut"))
    for snapshot in case.between:
        gone = [name for name in case.before.names(*BY_DIGEST) if name not in snapshot.objects]
        left = sorted(dropped & set(snapshot.objects))
        if gone and left:
            case.findings.add("TD-RET-002", left[0], f"it was deleted after {gone[0]}")


def _check_uploads(case: Case) -> None:
    """TD-RET-005: what was there already, and no manifest named, was put again before a manifest names it."""
    for snapshot in (case.before, *case.between):
        edges = snapshot.names("manifest", "shortcut")
        retained = _manifests(case, [name for name in edges if name in case.now.objects])
        named = {object for manifest in retained.values() for object in named_by(manifest)}
        new = [name for name in case.now.names("manifest", "shortcut") if name not in snapshot.objects]
        for name, manifest in _manifests(case, new).items():
            for object in sorted(named_by(manifest) & set(snapshot.objects) & set(case.now.objects) - named):
                if not case.now.objects[object].put_again(snapshot.objects[object]):
                    case.findings.add("TD-RET-005", object, f"it was not put again, though only {name} names it")


def _check_order(case: Case, snapshot: Snapshot) -> None:
    """What may not stand there without another object: at the end, and where the step was killed."""
    objects = snapshot.objects
    others = [name for name in snapshot.names(*BY_DIGEST, "manifest", "shortcut") if name not in case.before.objects]
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
