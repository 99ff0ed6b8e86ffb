"""The judge of writers: reads every object of a chain as it lies there, and says which rules its writer broke.

The objects are read by the small reader (`tensordelta_conformance.small_reader`); here stand the requirements of
Writers.

    violations = judge(root, before=snapshot, published={0: state}, request=request, answer=answer)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..small_reader.documents import manifest_name
from ..small_reader.fingerprint import state_fingerprint
from ..small_reader.rejection import Rejection
from ..small_reader.state import State, Tensor
from .case import Case, TensorLike, as_state, requested_state
from .chain import Chain
from .edges import check_edges
from .pins import check_pins
from .retention import check_retention
from .signatures import check_signatures
from .snapshot import Folder, Snapshot
from .step import check_step
from .stored import check_stored
from .violations import PROTOCOL, Violation

__all__ = ["PROTOCOL", "Snapshot", "State", "Tensor", "TensorLike", "Violation", "judge", "read_version"]


def read_version(root: Path, version: int) -> State:
    """The state of a version of a chain in a folder.

    It is read over the version's own manifest; over a shortcut where that cannot be.

    Raises:
        Rejection: why a Reader has to reject the version's own manifest.
    """
    return Chain(Folder(root)).version(version)


def judge(
    root: Path,
    *,
    before: Snapshot | None = None,
    published: Mapping[int, Mapping[str, Tensor | TensorLike]] | None = None,
    request: Mapping[str, Any] | None = None,
    answer: Mapping[str, Any] | None = None,
    between: Sequence[Snapshot] = (),
    advice: bool = False,
) -> list[Violation]:
    """The rules that the writer of a chain broke, in the objects that are new since a snapshot.

    Args:
        root: the folder of the chain.
        before: the folder before the step; None: it was empty.
        published: version -> the state with which it was published, as far as it is known; of a version that writers
            raced for, the state of the one that won.
        request: the request of the step (ADAPTER.md), with absolute paths; None: only the objects are judged.
        answer: the adapter's answer; None: it was killed.
        between: snapshots after each kill of the step, before it was done to its end.
        advice: report what breaks a SHOULD as well.
    """
    folder = Folder(root)
    known = {version: as_state(state) for version, state in (published or {}).items()}
    case = Case(folder, Snapshot.of_folder(folder), before or Snapshot({}), known, request or {}, answer, between)
    _forget_others(case)
    asked = requested_state(case.request)
    version = (answer or case.request).get("version")
    if asked is not None and isinstance(version, int):
        known.setdefault(version, asked)
    check_stored(case)
    check_edges(case)
    check_retention(case)
    check_pins(case)
    check_signatures(case)
    check_step(case)
    return [each for each in case.findings.violations if each.must or advice]


def _forget_others(case: Case) -> None:
    """Drops states that were never published: those with which a writer came to a version that was there already."""
    for version in case.before.versions():
        name = manifest_name(version)
        if version not in case.published or name in case.written("manifest"):
            continue
        try:
            fingerprint = case.chain.manifest(name).fingerprint
        except Rejection:
            continue  # it is gone, or was never any good
        if fingerprint != state_fingerprint(case.published[version]):
            del case.published[version]
