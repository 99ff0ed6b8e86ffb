"""What manifests and shortcuts say and do: each is read in full, and compared with what was published."""

from __future__ import annotations

import numpy as np

from .case import Case
from .chain import Reading
from .faults import Fault, reading
from .fingerprint import state_fingerprint
from .manifest import Manifest, manifest_name
from .model import State, layout_of
from .snapshot import kind_of
from .words import equal_as_numbers


def check_edges(case: Case) -> None:
    """Every manifest and shortcut that the step wrote."""
    for name in case.written("manifest", "shortcut"):
        _check_edge(case, name)
    _check_numbers(case)


def _check_numbers(case: Case) -> None:
    """TD-OBJ-014: a new number is greater than all that ever were."""
    new = case.new_versions()
    # The number asked for now is not one that was, if the writer took another one or none.
    ever = set(case.before.versions()) | (set(case.published) - {*new, case.request.get("version")})
    for version in new:
        if ever and version < max(ever):
            case.findings.add("TD-OBJ-014", manifest_name(version), f"version {max(ever)} was published before")


def _check_edge(case: Case, name: str) -> None:
    try:
        manifest = case.chain.manifest(name)
    except Fault as fault:
        case.findings.fault(fault, name)
        return
    _check_paths(case, name, manifest)
    published = case.published.get(manifest.version)
    if published is not None and state_fingerprint(published) != manifest.fingerprint:
        message = f"the state published has the fingerprint {state_fingerprint(published)}"
        case.findings.add("TD-FPR-007", name, message)
    if manifest.tensor_fingerprints is None and kind_of(name) == "manifest":
        case.findings.add("TD-FPR-004", name, "it names no fingerprints object", must=False)
    try:
        case.chain.check_files(name)
    except Fault as fault:
        case.findings.fault(fault, name)
    if kind_of(name) == "shortcut":
        try:
            case.chain.check_shortcut(name)
        except Fault as fault:
            case.findings.fault(fault, name)
    _check_words(case, name, published)


def _check_words(case: Case, name: str, published: State | None) -> None:
    try:
        found = case.chain.apply(name, case.chain.base_state(name))
    except Fault as fault:
        _fault_of_words(case, name, fault)
        return
    total = state_fingerprint(found.state)
    try:
        with reading(name):
            if total != found.manifest.fingerprint:
                raise Fault("integrity", "TD-RDR-007", f"the new state has the fingerprint {total}")
        case.chain.check_fingerprints(name, found.state)
    except Fault as fault:
        case.findings.fault(fault, name)
    if published is not None:
        _compare(case, name, found, published)


def _fault_of_words(case: Case, name: str, fault: Fault) -> None:
    if "a step of 0" in fault.reason:
        rule = "TD-VAL-004" if kind_of(name) == "manifest" else "TD-WRT-007"
        case.findings.add(rule, fault.object or name, "a word is listed with a step of 0")
    case.findings.fault(fault, name)


def _check_paths(case: Case, name: str, manifest: Manifest) -> None:
    for pack in manifest.packs:
        wanted = f"packs/{pack.sha256}.safetensors"
        if pack.path not in (None, wanted):
            case.findings.add("TD-PTH-006", name, f"a pack has the path {pack.path}, not {wanted}")
    for file in manifest.files:
        if file.path != f"files/{file.sha256}":
            case.findings.add("TD-PTH-007", name, f"the file {file.name} has the path {file.path}")


def _compare(case: Case, name: str, found: Reading, published: State) -> None:
    """The state read against the state published, tensor by tensor."""
    if layout_of(published) != found.layout:
        differing = set(layout_of(published)) ^ set(found.layout)
        message = f"the layout is not that of the state published: {sorted(differing)[:4]}"
        case.findings.add("TD-TRM-001", name, message)
        return
    for index, (tensor, dtype, _) in enumerate(found.layout):
        wanted, read = published[tensor].words, found.state[tensor].words
        wrong = wanted != read
        left_out = wrong & ~found.listed[index]
        only_bits = left_out & equal_as_numbers(dtype, wanted, read)
        for rule, places, what in (
            ("TD-WRD-002", only_bits, "differs from the base in bits only, and is not listed"),
            ("TD-CHK-018", left_out & ~only_bits, "differs from the fitted base, and is not listed"),
            ("TD-TRM-001", wrong & found.listed[index], "is listed, and is not the word published"),
        ):
            count = int(np.count_nonzero(places))
            if count:
                word = int(np.argmax(places))
                values = f"read {int(read[word]):#x}, published {int(wanted[word]):#x}"
                message = f"{tensor}: word {word} ({values}) {what}; {count} such words"
                case.findings.add(rule, name, message)
