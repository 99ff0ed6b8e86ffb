"""Rules that each object of a chain keeps or breaks by itself."""

from __future__ import annotations

from collections.abc import Callable

from ..names import SPEC_VERSION
from ..small_reader.documents import manifest_name, parse_chain, parse_latest, parse_layout, parse_signature
from ..small_reader.fields import parse_json
from ..small_reader.packs import open_chunk_file, split_file
from ..small_reader.rejection import Rejection
from .case import Case
from .snapshot import BY_DIGEST, CHANGEABLE, is_temporary, kind_of


def check_stored(case: Case) -> None:
    """Names, digests, padding and formats of the objects that the step wrote; changes of those that were there."""
    _check_changes(case)
    _check_names(case)
    for name in case.written():
        kind = kind_of(name)
        if kind == "pack":
            _check_pack(case, name)
        elif kind in _PARSERS:
            _check_document(case, name, _PARSERS[kind])
        if kind in ("chain", "latest", "layout", "manifest", "shortcut", "signature", "pin"):
            _check_format(case, name, case.folder[name])
    _check_hint(case)


_PARSERS: dict[str, Callable[[str, bytes], object]] = {
    "chain": lambda name, data: parse_chain(data),
    "latest": lambda name, data: parse_latest(data),
    "layout": lambda name, data: parse_layout(data, name[8:72]),
    "signature": lambda name, data: parse_signature(data),
}


def _check_changes(case: Case) -> None:
    """TD-OBJ-003, of objects of any name. What was torn may be mended: it was not yet the object of its name."""
    for name, stamp in sorted(case.before.objects.items()):
        kind = kind_of(name)
        torn = kind in BY_DIGEST and stamp.sha256 not in name
        # A signature that breaks a rule may be put anew; what is put is looked at below.
        changeable = kind in (*CHANGEABLE, "signature") or is_temporary(name) or torn
        if not changeable and name in case.now.objects and case.now.objects[name].sha256 != stamp.sha256:
            case.findings.add("TD-OBJ-003", name, "its bytes are not those of before")


def _check_names(case: Case) -> None:
    """TD-OBJ-002: every object has a name of the table, and the digest in it is that of its bytes."""
    for name, stamp in sorted(case.now.objects.items()):
        if name in case.before.objects and case.before.objects[name].sha256 == stamp.sha256:
            continue
        kind = kind_of(name)
        if kind is None and not is_temporary(name) and not case.killed and not _is_clock(case, name):
            case.findings.add("TD-OBJ-002", name, "no name of the table of section 4.1")
        if kind in BY_DIGEST and stamp.sha256 not in name:
            _wrong_digest(case, name)


def _is_clock(case: Case, name: str) -> bool:
    """Whether a name is that of an object from which a collector learned the time, before it was killed."""
    killed = any(name in snapshot.objects for snapshot in case.between)
    return case.operation == "collect" and killed and name.startswith("pins/")


def _wrong_digest(case: Case, name: str) -> None:
    """A torn object that a kill left is no more than untidy, as long as no manifest needs it."""
    if case.killed or any(name in snapshot.objects for snapshot in case.between):
        case.findings.add("TD-STO-004", name, "it stands under its name without all of its bytes", must=False)
    else:
        case.findings.add("TD-OBJ-002", name, "its bytes have another SHA-256 than its name says")


def _check_document(case: Case, name: str, parse: Callable[[str, bytes], object]) -> None:
    try:
        parse(name, case.folder[name])
    except Rejection as fault:
        if fault.rule != "TD-LAY-008":  # a digest that differs is a wrong name, not a wrong layout
            case.findings.fault(fault, name)


def _check_format(case: Case, name: str, data: bytes) -> None:
    """TD-VER-005, of a document or a chunk table."""
    try:
        found = parse_json(data).get("tensordelta")
    except Rejection:
        return  # reported where the object is read
    if found != SPEC_VERSION:
        case.findings.add("TD-VER-005", name, f'`tensordelta` is {found!r}, not "{SPEC_VERSION}"')


def _check_pack(case: Case, name: str) -> None:
    data = case.folder[name]
    try:
        header, _ = split_file(data)
    except Rejection:
        return  # reported when the pack is read for a manifest
    spare = header[header.rfind(b"}") + 1 :]
    if spare.strip(b" "):
        case.findings.add("TD-PCK-007", name, f"its header is padded with {sorted(set(spare))}")
    try:
        table = open_chunk_file(data).table
    except Rejection:
        return  # no chunk pack
    _check_format(case, name, table.encode())


def _check_hint(case: Case) -> None:
    """The hint is one of this chain; TD-OBJ-020: it names the newest version, once one was published."""
    named = None
    if "latest.json" in case.folder and "chain.json" in case.folder:
        try:
            hint = parse_latest(case.folder["latest.json"])
            named = hint.version
            own = parse_chain(case.folder["chain.json"])
        except Rejection:
            return  # reported above
        if hint.chain != own and case.written("latest"):
            case.findings.fault(Rejection("conflict", "TD-OBJ-018", f"it names the chain {hint.chain}"), "latest.json")
    versions = case.now.versions()
    if case.operation == "publish" and case.succeeded and versions and named != versions[-1]:
        message = f"it names {'nothing' if named is None else manifest_name(named)}, not version {versions[-1]}"
        case.findings.add("TD-OBJ-020", "latest.json", message, must=False)
