"""Whether the adapter did what the request asked, and what its answer says (ADAPTER.md)."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..small_reader.documents import Manifest, manifest_name, parse_manifest
from ..small_reader.fingerprint import state_fingerprint
from ..small_reader.rejection import Rejection
from ..small_reader.state import DTYPES, layout_of
from .case import Case, requested_state
from .retention import check_kept
from .signatures import is_signed
from .violations import PROTOCOL


def check_step(case: Case) -> None:
    """The answer against the folder."""
    if case.answer is None or not case.request:
        return
    if case.operation == "publish":
        _check_publish(case)
    if case.operation == "shortcut" and case.succeeded:
        _check_shortcut(case)
    if case.operation == "collect":
        check_kept(case)
    if case.operation != "publish" and case.new_versions():
        case.findings.add(PROTOCOL, manifest_name(case.new_versions()[0]), "nobody asked for this version")


def _check_publish(case: Case) -> None:
    assert case.answer is not None
    new = case.new_versions()
    if not case.succeeded:
        if new:
            case.findings.add(PROTOCOL, manifest_name(new[0]), "the answer is an error, but the version is there")
        return
    version = case.answer.get("version")
    if not isinstance(version, int) or isinstance(version, bool):
        case.findings.add(PROTOCOL, "", f"the answer's `version` is {version!r}")
        return
    asked = case.request.get("version", version)
    if asked != version:
        case.findings.add(PROTOCOL, "", f"published under {version}, asked for {asked}")
    name = manifest_name(version)
    if name not in case.now.objects:
        case.findings.add("TD-ERR-004", name, "the answer is ok, but the version does not exist")
        return
    for other in set(new) - {version}:
        case.findings.add(PROTOCOL, manifest_name(other), "nobody asked for this version")
    try:
        manifest = case.chain.manifest(name)
    except Rejection:
        return  # reported where edges are read
    if version in new or case.between:
        _check_request(case, name, manifest)
    else:
        _check_own_success(case, name, manifest)


def _check_own_success(case: Case, name: str, manifest: Manifest) -> None:
    """TD-WRT-006: the manifest that was there may be taken for one's own only if it is the same; TD-SIG-013."""
    if not is_signed(case, manifest.version):
        case.findings.add("TD-SIG-013", name, "it was there unsigned, and the answer is ok")
    state = requested_state(case.request)
    if state is None:
        case.findings.add(PROTOCOL, name, "the answer is ok, but the file to publish holds no state")
        return
    mine = (layout_of(state), state_fingerprint(state), _files_asked(case))
    try:
        layout = case.chain.layout(manifest.layout)
    except Rejection:
        return  # it was there before
    if mine != (layout, manifest.fingerprint, _files_of(manifest)):
        case.findings.add("TD-WRT-006", name, "another state or other files were there, and the answer is ok")


def _is_broken(case: Case, version: int | None) -> bool:
    """An object that a version's manifest names was gone, so that a Writer may go on with a full version."""
    name = manifest_name(version or 0)
    try:
        manifest = parse_manifest(case.before.edges[name], name)
    except Rejection:
        return True
    return any(pack.path is not None and pack.path not in case.before.objects for pack in manifest.packs)


def _check_request(case: Case, name: str, manifest: Manifest) -> None:
    """What a new manifest has to have of the request."""
    _check_race(case, name, manifest)
    older: list[int | None] = [version for version in case.before.versions() if is_signed(case, version)]
    base = None if manifest.base is None else manifest.base.version
    wanted = None if case.request.get("full", False) else [None, *older][-1]
    if base is not None and base not in older:
        case.findings.add("TD-SIG-013", name, f"its base is {base}, which is not signed")
    elif base is not None and base != older[-1]:
        case.findings.add("TD-RET-015", name, f"its base is {base}, and {older[-1]} was the newest")
    elif base != wanted and not (base is None and _is_broken(case, older[-1])):
        case.findings.add(PROTOCOL, name, f"its base is {base}, and not {wanted}")
    if manifest.annotations != case.request.get("annotations", manifest.annotations):
        case.findings.add(PROTOCOL, name, f"its annotations are {manifest.annotations}")
    if _files_of(manifest) != _files_asked(case):
        case.findings.add(PROTOCOL, name, f"its files are {sorted(_files_of(manifest))}")
    _check_order(case, manifest)


def _check_race(case: Case, name: str, manifest: Manifest) -> None:
    """TD-WRT-006: the manifest is that of another writer, who published at the same time."""
    state = requested_state(case.request)
    if state is None or case.published.get(manifest.version, state) == state:
        return
    try:
        found = (case.chain.layout(manifest.layout), manifest.fingerprint)
    except Rejection:
        return  # reported where edges are read
    if found != (layout_of(state), state_fingerprint(state)):
        case.findings.add("TD-WRT-006", name, "another writer published another state, and the answer is ok")


def _check_order(case: Case, manifest: Manifest) -> None:
    """Order `natural` and `exponent` are asked for so that readers of a level are not surprised."""
    try:
        chunks = case.chain.decode(manifest, case.chain.base_state(manifest)).parts.chunks
    except Rejection:
        return  # reported where edges are read
    orders = {chunk.order for chunk in chunks}
    asked = case.request.get("order", "natural")
    if asked == "natural" and "exponent" in orders:
        case.findings.add(PROTOCOL, manifest.name, "order `exponent` was not asked for")
    candidates = [
        chunk
        for chunk in chunks
        if DTYPES[chunk.dtype].mask and chunk.values == "step" and chunk.positions != "all" and chunk.changed >= 64
    ]
    if asked == "exponent" and candidates and "exponent" not in orders:
        case.findings.add(PROTOCOL, manifest.name, "order `exponent` was asked for, and no chunk has it")


def _check_shortcut(case: Case) -> None:
    base = case.request.get("from")
    tag = case.request.get("tag")
    start = "full" if base is None else f"{base:012d}"
    name = f"shortcuts/{case.request['to']:012d}-{start}{'' if tag is None else '.' + tag}.json"
    if name not in case.now.objects:
        case.findings.add("TD-ERR-004", name, "the answer is ok, but the shortcut does not exist")


def _files_of(manifest: Manifest) -> set[tuple[str, int, str]]:
    return {(file.name, file.size, file.sha256) for file in manifest.files}


def _files_asked(case: Case) -> set[tuple[str, int, str]]:
    found = set()
    for name, path in case.request.get("files", {}).items():
        data = Path(path).read_bytes()
        found.add((name, len(data), hashlib.sha256(data).hexdigest()))
    return found
