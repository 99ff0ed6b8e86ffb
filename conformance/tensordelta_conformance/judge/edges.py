"""What manifests and shortcuts say and do: each is read in full, and compared with what was published."""

from __future__ import annotations

import re

import numpy as np

from ..small_reader.chain import Decoded
from ..small_reader.documents import Manifest, manifest_name
from ..small_reader.fingerprint import state_fingerprint, tensor_fingerprint
from ..small_reader.rejection import Rejection, about, require
from ..small_reader.state import State, layout_of
from .case import Case
from .snapshot import kind_of
from .words import equal_as_numbers


def check_edges(case: Case) -> None:
    """Every manifest and shortcut that the step wrote."""
    for name in case.written("manifest", "shortcut"):
        _check_edge(case, name)
    _check_numbers(case)


def _check_numbers(case: Case) -> None:
    """TD-OBJ-014: a new number is greater than all that were there."""
    before = case.before.versions()
    for version in case.new_versions():
        if before and version < before[-1]:
            case.findings.add("TD-OBJ-014", manifest_name(version), f"version {before[-1]} was there")


def _check_edge(case: Case, name: str) -> None:
    try:
        manifest = case.chain.manifest(name)
    except Rejection as fault:
        case.findings.fault(fault, name)
        return
    _check_paths(case, name, manifest)
    published = case.published.get(manifest.version)
    if published is not None and state_fingerprint(published) != manifest.fingerprint:
        message = f"the state published has the fingerprint {state_fingerprint(published):016x}"
        case.findings.add("TD-FPR-007", name, message)
    if manifest.tensor_fingerprints is None and kind_of(name) == "manifest":
        case.findings.add("TD-FPR-004", name, "it names no fingerprints object", must=False)
    try:
        for file in manifest.files:
            case.chain.check_file(file)
    except Rejection as fault:
        case.findings.fault(fault, name)
    if kind_of(name) == "shortcut":
        try:
            with about(name):
                case.chain.check_shortcut(manifest)
        except Rejection as fault:
            case.findings.fault(fault, name)
    _check_words(case, manifest, published)


def _check_words(case: Case, manifest: Manifest, published: State | None) -> None:
    try:
        found = case.chain.decode(manifest, case.chain.base_state(manifest))
    except Rejection as fault:
        _fault_of_words(case, manifest.name, fault)
        return
    total = state_fingerprint(found.state)
    try:
        require(total == manifest.fingerprint, "TD-RDR-007", f"the new state has {total:016x}", "integrity")
        _check_fingerprints(case, manifest, found.state)
    except Rejection as fault:
        case.findings.fault(fault, manifest.name)
    if published is not None:
        _compare(case, manifest.name, found, published)


def _check_fingerprints(case: Case, manifest: Manifest, state: State) -> None:
    """Each number of the fingerprints object, where the manifest names one."""
    numbers = case.chain.tensor_fingerprints(manifest)
    if numbers is None:
        return
    wanted = [tensor_fingerprint(name, state[name].words) for name, _, _ in layout_of(state)]
    wrong = [index for index, pair in enumerate(zip(numbers, wanted, strict=True)) if pair[0] != pair[1]]
    with about(f"fingerprints/{manifest.tensor_fingerprints}.bin"):
        require(not wrong, "TD-RDR-012", f"the fingerprints of the tensors {wrong} differ", "integrity")


def _fault_of_words(case: Case, name: str, fault: Rejection) -> None:
    # An unchanged word has the step 0, which encode_step would make the escape 2^w - 4.
    if fault.rule == "TD-VAL-002" and fault.reason.endswith("2^w - 4"):
        case.findings.add("TD-VAL-004", fault.object or name, "a word is listed with a step of 0")
    case.findings.fault(fault, name)


def _check_paths(case: Case, name: str, manifest: Manifest) -> None:
    for pack in manifest.packs:
        wanted = rf"packs/{pack.sha256}-[0-9a-f]{{16}}\.safetensors"
        if pack.path is not None and not re.fullmatch(wanted, pack.path):
            case.findings.add("TD-PTH-006", name, f"a pack has the path {pack.path}")
    for file in manifest.files:
        if not re.fullmatch(rf"files/{file.sha256}-[0-9a-f]{{16}}", file.path):
            case.findings.add("TD-PTH-007", name, f"the file {file.name} has the path {file.path}")


def _compare(case: Case, name: str, found: Decoded, published: State) -> None:
    """The state read against the state published, tensor by tensor."""
    layout = found.parts.layout
    if layout_of(published) != layout:
        differing = set(layout_of(published)) ^ set(layout)
        message = f"the layout is not that of the state published: {sorted(differing)[:4]}"
        case.findings.add("TD-TRM-001", name, message)
        return
    listed = [np.zeros(tensor.words, np.bool_) for tensor in layout]
    for patch in found.patches:
        listed[patch.tensor][patch.at] = True
    for index, (tensor, dtype, _) in enumerate(layout):
        wanted, read = published[tensor].words, found.state[tensor].words
        wrong = wanted != read
        left_out = wrong & ~listed[index]
        only_bits = left_out & equal_as_numbers(dtype, wanted, read)
        for rule, places, what in (
            ("TD-WRD-002", only_bits, "differs from the base in bits only, and is not listed"),
            ("TD-CHK-018", left_out & ~only_bits, "differs from the fitted base, and is not listed"),
            ("TD-TRM-001", wrong & listed[index], "is listed, and is not the word published"),
        ):
            count = int(np.count_nonzero(places))
            if count:
                word = int(np.argmax(places))
                values = f"read {int(read[word]):#x}, published {int(wanted[word]):#x}"
                message = f"{tensor}: word {word} ({values}) {what}; {count} such words"
                case.findings.add(rule, name, message)
